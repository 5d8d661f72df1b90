"""What a person does, by the names of the page: each command checks what it is given and calls the session's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from grounded_sam2 import session as sessions
from grounded_sam2.masks import Masks, boxes_around, decode_rle, encode_rle
from grounded_sam2.session import Answer, Session
from studio import checks
from studio.checks import Check, check_args
from studio.describe import Json, score_json, spans_of
from studio.found import Found
from studio.room import Room

__all__ = ["COMMANDS", "do"]


def do(room: Room, command: str, args: Mapping[str, Any]) -> Json:
    """Do one command.

    Returns:
        {"result": …}, and where it may change something, "touched" and "state".

    Raises:
        ValueError: no such command, or arguments that it does not take.
        ConflictError, BusyError, NotFoundError, OSError: see `Room.use`.
    """
    if command not in COMMANDS:
        raise ValueError(f"expected a command of {', '.join(COMMANDS)}, got {command!r}")
    function, needs_model, is_changing = COMMANDS[command]
    parameters = dict(list(inspect.signature(function).parameters.items())[2:])  # behind the room and the session
    required = [name for name, each in parameters.items() if each.default is each.empty]
    given = check_args(command, args, {name: _CHECKS[name] for name in parameters}, required)
    with room.use(with_model=needs_model) as session:
        if not is_changing:
            return {"result": function(room, session, **given)}
        room.refuse_while_changing()
        before = _last(session)
        result = function(room, session, **given)
        touched = []
        if command in ("undo", "redo"):
            commands = session.history.undone if command == "undo" else session.history.done
            touched = spans_of(session, commands[-1]) if result["kind"] is not None else []
        elif session.history.done and _last(session) != before:
            touched = spans_of(session, session.history.done[-1])
        return {"result": result, "touched": touched, "state": room.note_change(session, touched)}


def _last(session: Session) -> int:
    done = session.history.done
    return done[-1].seq if done else 0


# what each argument has to be, in whatever command
_CHECKS: dict[str, Check] = {
    **dict.fromkeys(["frame", "id", "other", "first", "last"], checks.whole),
    **dict.fromkeys(["text_prompt", "detector", "find", "class_name", "name", "color"], checks.text),
    **dict.fromkeys(["box_threshold", "text_threshold"], checks.threshold),
    **dict.fromkeys(["erase", "is_hidden", "is_locked"], checks.yes_or_no),
    **dict.fromkeys(["points", "stroke"], checks.points),
    **dict.fromkeys(["labels", "keys"], checks.whole_list),
    "box": checks.numbers,
    "counts": checks.encoded,
    "groups": checks.groups,
    "radius": checks.number,
}


# ---- clicks, boxes and masks ----


def _add(
    room: Room,
    session: Session,
    frame: int,
    box: list[float] | None = None,
    points: list[list[float]] | None = None,
    labels: list[int] | None = None,
    counts: str | None = None,
    class_name: str = "object",
    name: str | None = None,
) -> Json:
    mask = None if counts is None else _mask(session, counts)
    obj_id = sessions.add_object(
        session, frame, box=box, points=points, labels=labels, mask=mask, class_name=class_name, name=name
    )
    return {"id": obj_id, "score": _score_at(session, obj_id, frame)}


def _refine(
    room: Room, session: Session, id: int, frame: int, points: list[list[float]], labels: list[int] | None = None
) -> Json:
    return {"score": score_json(sessions.refine(session, id, frame, points, labels).mask_score)}


def _preview(
    room: Room,
    session: Session,
    frame: int,
    id: int | None = None,
    box: list[float] | None = None,
    points: list[list[float]] | None = None,
    labels: list[int] | None = None,
) -> Json:
    return _answer_json(sessions.preview(session, frame, obj_id=id, box=box, points=points, labels=labels))


def _show(room: Room, session: Session, frame: int) -> None:
    room.look_at(session.check_frame(frame))


def _paint(
    room: Room, session: Session, id: int, frame: int, stroke: list[list[float]], radius: float, erase: bool = False
) -> Json:
    mask = sessions.paint(session, id, frame, stroke, radius, erase=erase)
    return {"area": int(mask.sum())}


def _set_mask(room: Room, session: Session, id: int, frame: int, counts: str) -> None:
    sessions.set_mask(session, id, frame, _mask(session, counts))


def _mask(session: Session, counts: str) -> Masks:
    size = (session.size[1], session.size[0])
    return decode_rle([{"size": list(size), "counts": counts}], size)[0]


def _answer_json(answer: Answer) -> Json:
    [rle] = encode_rle(answer.mask[None])
    box = boxes_around(answer.mask[None])[0].tolist() if answer.mask.any() else [0, 0, 0, 0]
    return {"counts": rle["counts"], "box": box, "score": score_json(answer.mask_score)}


def _score_at(session: Session, obj_id: int, frame_idx: int) -> float | None:
    record = session.cells.at(obj_id, frame_idx)
    return None if record is None else score_json(record["mask_score"])


# ---- text, and everything ----


def _set_search(
    room: Room,
    session: Session,
    text_prompt: str | None = None,
    box_threshold: float | dict[str, float] | None = None,
    text_threshold: float | dict[str, float] | None = None,
) -> None:
    given = {"text_prompt": text_prompt, "box_threshold": box_threshold, "text_threshold": text_threshold}
    sessions.set_search(session, **{name: value for name, value in given.items() if value is not None})


def _find(room: Room, session: Session, frame: int, detector: str | None = None) -> Json:
    return _kept(room, Found.of(frame, sessions.find(session, room.models.detector(detector), frame)))


def _everything(room: Room, session: Session, frame: int) -> Json:
    pieces, rles = room.models.everything(session.frames[session.check_frame(frame)])
    return _kept(room, Found(frame, pieces, rles))


def _kept(room: Room, found: Found) -> Json:
    return {"find": room.keep_find(found), "frame": found.frame_idx, "items": found.items()}


def _accept(room: Room, session: Session, find: str, keys: list[int]) -> Json:
    found = room.found(find)
    return {"ids": sessions.accept(session, found.frame_idx, found.chosen(keys))}


def _accept_pieces(
    room: Room, session: Session, find: str, groups: list[list[int]], class_name: str = "object"
) -> Json:
    found = room.found(find)
    return {"ids": sessions.accept(session, found.frame_idx, found.united(groups, class_name or "object"))}


# ---- objects and spans ----


def _rename(room: Room, session: Session, id: int, name: str | None = None, class_name: str | None = None) -> None:
    sessions.rename(session, id, name, class_name)


def _recolor(room: Room, session: Session, id: int, color: str) -> None:
    sessions.recolor(session, id, color)


def _hide(room: Room, session: Session, id: int, is_hidden: bool = True) -> None:
    sessions.hide(session, id, is_hidden)


def _lock(room: Room, session: Session, id: int, is_locked: bool = True) -> None:
    sessions.lock(session, id, is_locked)


def _remove(room: Room, session: Session, id: int) -> None:
    sessions.remove(session, id)


def _merge(room: Room, session: Session, id: int, other: int, first: int = 0, last: int | None = None) -> None:
    sessions.merge(session, id, other, first, last)


def _split(room: Room, session: Session, id: int, first: int, last: int | None = None, name: str | None = None) -> Json:
    return {"id": sessions.split(session, id, first, last, name)}


def _swap(room: Room, session: Session, id: int, other: int, first: int = 0, last: int | None = None) -> None:
    sessions.swap(session, id, other, first, last)


def _clear(room: Room, session: Session, id: int, first: int = 0, last: int | None = None) -> None:
    sessions.clear(session, id, first, last)


def _pin(room: Room, session: Session, id: int, frame: int) -> None:
    sessions.pin(session, id, frame)


def _release(room: Room, session: Session, id: int, frame: int) -> None:
    sessions.release(session, id, frame)


def _undo(room: Room, session: Session) -> Json:
    return {"kind": session.undo()}


def _redo(room: Room, session: Session) -> Json:
    return {"kind": session.redo()}


# name → function, whether it asks the models, whether it changes the session
COMMANDS: dict[str, tuple[Callable[..., Any], bool, bool]] = {
    "add": (_add, True, True),
    "refine": (_refine, True, True),
    "preview": (_preview, True, False),
    "show": (_show, False, False),
    "paint": (_paint, False, True),
    "set_mask": (_set_mask, False, True),
    "set_search": (_set_search, False, True),
    "find": (_find, True, False),
    "accept": (_accept, False, True),
    "everything": (_everything, True, False),
    "accept_pieces": (_accept_pieces, False, True),
    "rename": (_rename, False, True),
    "recolor": (_recolor, False, True),
    "hide": (_hide, False, True),
    "lock": (_lock, False, True),
    "remove": (_remove, False, True),
    "merge": (_merge, False, True),
    "split": (_split, False, True),
    "swap": (_swap, False, True),
    "clear": (_clear, False, True),
    "pin": (_pin, False, True),
    "release": (_release, False, True),
    "undo": (_undo, False, True),
    "redo": (_redo, False, True),
}
