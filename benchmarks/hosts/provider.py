"""What Ray's autoscaler takes for a cloud: it asks for hosts by files in a folder, which `benchmarks.hosts.cloud` obeys.

The autoscaler runs within the head's host and cannot make others itself, as on any cloud.
"""

import json
import uuid
from pathlib import Path
from typing import Any

from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import NODE_KIND_HEAD, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

HEAD = "head"


class FolderProvider(NodeProvider):
    """`provider_config["folder"]` has a file for every host that there is to be; its tags are in it."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._folder = Path(provider_config["folder"])

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        """Return the hosts that are wanted and have these tags."""
        known = [HEAD, *(file.stem for file in self._folder.glob("*.json"))]
        return [node for node in known if tag_filters.items() <= self.node_tags(node).items()]

    def node_tags(self, node_id: str) -> dict[str, str]:
        """Return a host's tags."""
        if node_id == HEAD:
            return {TAG_RAY_NODE_KIND: NODE_KIND_HEAD, TAG_RAY_USER_NODE_TYPE: HEAD}
        file = self._folder / f"{node_id}.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def is_running(self, node_id: str) -> bool:
        """Say whether a host is wanted."""
        return node_id == HEAD or (self._folder / f"{node_id}.json").exists()

    def is_terminated(self, node_id: str) -> bool:
        """Say whether a host is not wanted any more."""
        return not self.is_running(node_id)

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> None:  # noqa: ARG002
        """Ask for hosts."""
        for _ in range(count):
            draft = self._folder / f"{uuid.uuid4().hex[:8]}.draft"
            draft.write_text(json.dumps(tags))
            draft.rename(draft.with_suffix(".json"))

    def terminate_node(self, node_id: str) -> None:
        """Ask for the end of a host."""
        (self._folder / f"{node_id}.json").unlink(missing_ok=True)

    def set_node_tags(self, node_id: str, tags: dict[str, str]) -> None:
        """Change tags: nobody does where nodes are not set up by the autoscaler."""
        raise NotImplementedError

    def internal_ip(self, node_id: str) -> str:
        """Return what tells a host from others."""
        return node_id

    external_ip = internal_ip

    @staticmethod
    def bootstrap_config(cluster_config: dict[str, Any]) -> dict[str, Any]:
        """Leave the configuration as it is."""
        return cluster_config
