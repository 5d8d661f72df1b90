"""The log of what happens to objects."""

from pathlib import Path

from grounded_sam2.track.events import EventLogWriter, IdentityEvent, read_events


def test_events_are_read_back_even_after_a_crash(tmp_path: Path) -> None:
    events = [IdentityEvent(3, 1, "born", "detected"), IdentityEvent(9, 1, "lost", "unseen for 6 frames")]
    with EventLogWriter(tmp_path / "events.jsonl") as log:
        log.write(events[:1])
        log.write(events[1:])
        assert read_events(log.file.partial_path) == events  # on disk before the log is closed
    assert [path.name for path in tmp_path.iterdir()] == ["events.jsonl"]
    assert read_events(log.path) == events
    log.path.write_text(log.path.read_text(encoding="utf-8")[:-4], encoding="utf-8")
    assert read_events(log.path) == events[:1]
