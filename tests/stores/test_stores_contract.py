"""Every promise about files holds on a local disk, on S3, on Google Cloud Storage and on Azure alike."""

import io
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.workspace import (
    Workspace,
    create_bytes,
    delete,
    delete_folder,
    exists,
    list_files,
    list_folders,
    mark,
    move,
    read_bytes,
    resolve,
    write_bytes,
    write_stream,
)

PARTS = 6 << 20  # more than one part of a multipart upload
CREATOR = """
import sys
from app.workspace import Workspace, create_bytes
workspace, me = Workspace(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    try:
        create_bytes(workspace.uri("race", str(number)), me.encode())
    except FileExistsError:
        continue
    print(number, flush=True)
"""


def test_what_was_written_is_read_whatever_its_bytes_and_size(workspace: Workspace) -> None:
    uri = workspace.uri("new", "folder", "file.x")
    for data in (b"", b"\x00\xff" * 1000, os.urandom(PARTS), b"shorter"):
        write_bytes(uri, data)
        assert read_bytes(uri) == data


def test_a_name_may_hold_what_addresses_make_special(workspace: Workspace) -> None:
    name = "a b+c#d%20e&f=g,ü.x"
    write_bytes(workspace.uri("n", name), b"1")
    assert read_bytes(workspace.uri("n", name)) == b"1"
    assert [file.name for file in list_files(workspace.uri("n"))] == [name]


def test_a_missing_file_is_told_apart_from_an_empty_one(workspace: Workspace) -> None:
    write_bytes(workspace.uri("folder", "empty"), b"")
    assert read_bytes(workspace.uri("folder", "empty")) == b""
    with pytest.raises(FileNotFoundError):
        read_bytes(workspace.uri("folder", "none"))
    assert exists(workspace.uri("folder", "empty"))
    assert exists(workspace.uri("folder"))
    assert not exists(workspace.uri("fold"))
    assert not exists(workspace.uri("folder", "none"))


def test_a_folder_lists_its_own_files_and_no_neighbours(workspace: Workspace) -> None:
    for name in ("a/1", "a/2", "a/b/3", "a/b/c/4", "ab/5", "6"):
        write_bytes(workspace.uri(*name.split("/")), name.encode())
    found = list_files(workspace.uri("a"))
    assert sorted((file.name, file.size) for file in found) == [("1", 3), ("2", 3)]
    assert {file.written.utcoffset().total_seconds() for file in found} == {0}
    assert sorted(file.name for file in list_files(workspace.uri("a"), recursive=True)) == ["1", "2", "b/3", "b/c/4"]
    assert sorted(list_folders(workspace.root)) == ["a", "ab"]
    assert list_folders(workspace.uri("a")) == ["b"]
    assert list_files(workspace.uri("nothing")) == list_folders(workspace.uri("nothing")) == []


def test_a_folder_of_more_files_than_a_page_is_listed_whole(workspace: Workspace) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: write_bytes(workspace.uri("many", f"{number:04}"), b""), range(1010)))
    assert len(list_files(workspace.uri("many"))) == 1010
    delete_folder(workspace.uri("many"))
    assert list_files(workspace.uri("many")) == []


def test_what_is_deleted_is_gone_and_nothing_else_is(workspace: Workspace) -> None:
    for name in ("a/1", "a/2", "a/b/3", "ab/5"):
        write_bytes(workspace.uri(*name.split("/")), b"")
    delete(workspace.uri("a", "1"))
    delete(workspace.uri("a", "1"))
    assert [file.name for file in list_files(workspace.uri("a"))] == ["2"]
    delete_folder(workspace.uri("a"))
    delete_folder(workspace.uri("a"))
    assert not exists(workspace.uri("a", "b", "3"))
    assert list_files(workspace.uri("a"), recursive=True) == []
    assert exists(workspace.uri("ab", "5"))


def test_a_moved_file_is_in_one_place(workspace: Workspace) -> None:
    write_bytes(workspace.uri("here", "1"), b"1")
    move(workspace.uri("here", "1"), workspace.uri("there", "far", "2"))
    assert read_bytes(workspace.uri("there", "far", "2")) == b"1"
    assert not exists(workspace.uri("here", "1"))
    with pytest.raises(FileNotFoundError):
        move(workspace.uri("here", "1"), workspace.uri("there", "3"))


def test_a_mark_changes_with_the_file_and_only_then(workspace: Workspace) -> None:
    uri = workspace.uri("file")
    assert mark(uri) is None
    write_bytes(uri, b"1")
    first = mark(uri)
    assert first is not None
    assert mark(uri) == first
    write_bytes(uri, b"2")
    assert mark(uri) not in (None, first)


def test_of_many_threads_that_create_a_file_one_succeeds(workspace: Workspace) -> None:
    uri = workspace.uri("folder", "file")

    def create(number: int) -> int | None:
        try:
            create_bytes(uri, str(number).encode())
        except FileExistsError:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(create, range(50)) if number is not None]
    assert [read_bytes(uri).decode()] == [str(number) for number in winners]


def test_equal_contents_do_not_make_two_winners(workspace: Workspace) -> None:
    create_bytes(workspace.uri("file"), b"the same")
    with pytest.raises(FileExistsError):
        create_bytes(workspace.uri("file"), b"the same")


def test_of_two_processes_that_create_files_each_file_has_one(workspace: Workspace) -> None:
    def begin(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CREATOR, workspace.root, name]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    processes = {name: begin(name) for name in ("one", "two")}
    for process in processes.values():
        assert process.stdout.readline() == "ready\n"
    for process in processes.values():
        process.stdin.write("\n")
        process.stdin.flush()
    won = {name: process.communicate()[0].split() for name, process in processes.items()}
    assert sorted([*won["one"], *won["two"]], key=int) == [str(number) for number in range(20)]
    for name, numbers in won.items():
        assert all(read_bytes(workspace.uri("race", number)) == name.encode() for number in numbers)


def test_a_reader_never_sees_half_a_file(workspace: Workspace) -> None:
    uri, done = workspace.uri("file"), threading.Event()
    contents = (b"a" * PARTS, b"b" * (PARTS // 2))
    write_bytes(uri, contents[0])

    def read() -> int:
        count = 0
        while count == 0 or not done.is_set():
            assert read_bytes(uri) in contents
            count += 1
        return count

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for number in range(1, 7):
                write_bytes(uri, contents[number % 2])
        finally:
            done.set()
        assert sum(reader.result() for reader in readers) > 0


def test_a_stream_that_breaks_off_leaves_the_file_before(workspace: Workspace) -> None:
    uri = workspace.uri("file")

    def fill(stream: BinaryIO) -> None:
        stream.write(b"x" * PARTS)
        assert read_bytes(uri) == b"before"
        raise KeyError

    write_bytes(uri, b"before")
    with pytest.raises(KeyError):
        write_stream(uri, fill)
    assert read_bytes(uri) == b"before"
    write_stream(uri, lambda stream: stream.write(b"y" * PARTS))
    assert read_bytes(uri) == b"y" * PARTS
    assert [file.name for file in list_files(workspace.root)] == ["file"]


def test_columns_are_read_out_of_a_file_by_the_same_address(workspace: Workspace) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": range(1000), "b": range(1000)}), sink, row_group_size=100)
    write_bytes(workspace.uri("rows", "1.parquet"), sink.getvalue())
    filesystem, path = resolve(workspace.uri("rows", "1.parquet"))
    assert pq.read_table(path, columns=["b"], filesystem=filesystem)["b"].to_pylist() == list(range(1000))
    with pytest.raises(FileNotFoundError):
        filesystem.open_input_file(resolve(workspace.uri("rows", "2.parquet"))[1])


def test_an_address_may_be_given_on_to_another_process(workspace: Workspace) -> None:
    write_bytes(workspace.uri("file"), b"1")
    script = (
        "import sys; from app.workspace import *; print(read_bytes(sys.argv[1]).decode(), resolve(sys.argv[1])[1])"
    )
    said = subprocess.run([sys.executable, "-c", script, workspace.uri("file")], capture_output=True, text=True)
    assert said.stdout.split() == ["1", resolve(workspace.uri("file"))[1]]
    assert json.dumps(workspace.root)
