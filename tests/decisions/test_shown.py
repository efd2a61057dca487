"""What the metrics show of a turn is what the report says, and the ledger."""

from app.decisions.ledger import Draft, Ledger
from app.decisions.shown import shown
from app.monitor.state import Monitor
from app.workspace import Workspace

AT = 1_719_792_000_000  # 2024-07-01


def test_a_loop_that_knows_nothing_yet_shows_zeros_and_no_guess(declaration) -> None:
    report = Monitor(declaration.spec, lambda version: None).report()
    state = shown(report, [], 5.0, 0, 1e9)
    assert state.findings == {"drift": 0, "loss": 0, "fault": 0}
    assert set(state.labels.values()) == {0}
    assert (state.watermark, state.drift_level, state.champion, state.coverage) == (None, None, None, None)
    assert state.entries["rollback"] == 0
    assert not state.newest


def test_figures_are_those_of_report_and_ledger(declaration, tmp_path) -> None:
    ledger = Ledger.open(Workspace.open(str(tmp_path)), "rides")
    champion = {"champion": {"version": "7", "bundle": "b", "known_until": None}}
    for kind, key in (("deploy", "a"), ("alarm_noted", "b"), ("alarm_noted", "c")):
        ledger.append(Draft(kind, key, AT, 1, "because", champion if kind == "deploy" else {}), AT + 1500)
    report = Monitor(declaration.spec, lambda version: None).report()
    report |= {"as_of": "2024-07-01T00:00:00.500Z", "step": 9, "loss": {"expected": 0.4, "lately": 0.5, "days": []}}
    report["findings"] = [{"kind": "drift"}, {"kind": "drift"}, {"kind": "fault"}]
    told = [(3.0, 4.0), (None, 4.0), (6.0, 4.0), (-1.0, 4.0), (None, None)]
    report["features"] = [{"evidence": evidence, "threshold": threshold} for evidence, threshold in told]
    state = shown(report, ledger.entries(), 5.0, 2, 1e9)
    assert state.watermark == AT / 1000 + 0.5
    assert state.drift_level == 1.5
    assert state.findings == {"drift": 2, "loss": 0, "fault": 1}
    assert state.loss == {"expected": 0.4, "served": 0.5}
    assert (state.step, state.champion, state.pages_waiting) == (9, 7, 2)
    assert state.entries["alarm_noted"] == 2
    assert state.newest == {"deploy": AT / 1000 + 1.5, "alarm_noted": AT / 1000 + 1.5}
