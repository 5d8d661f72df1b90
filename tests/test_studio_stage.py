"""The page's foundation and its stage, in a real browser against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import bundled_clip
from pycocotools import mask as coco
from studio_browser import WAIT_SECONDS, Server, Tab, bundled_models, wait_until

pytest.importorskip("gradio", reason="the page needs the extra `app`: pip install .[app]")

WIDTH, HEIGHT, NUM_FRAMES = 640, 360, 30
OWL, NOTHING = (234, 190), (326, 307)  # places on its first frame
FIRST, SECOND = (100, 100, 200, 180), (300, 120, 420, 200)  # boxes of two objects that are put there


NOTE_TOASTS = """if (!window.toasts) {
    window.toasts = [];
    new MutationObserver((records) => {
        for (const node of records.flatMap((record) => [...record.addedNodes]))
            if (node.dataset?.test === "toast") toasts.push(node.dataset.text);
    }).observe(document, { childList: true, subtree: true });
}"""


def box_counts(left: int, top: int, right: int, bottom: int) -> str:
    """The mask of a box, as COCO's compressed run lengths."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[top:bottom, left:right] = 1
    return str(coco.encode(mask)["counts"].decode())


def middle(box: tuple[int, int, int, int]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


class Page(Tab):
    """The studio in a tab. `commands` are those it gave: [command, args]."""

    def __init__(self, page: Any, url: str) -> None:
        super().__init__(page)
        self.commands: list[tuple[str, dict[str, Any]]] = []
        self.errors: list[str] = []
        page.on("pageerror", self._fail)
        page.on("request", self._note)
        page.add_init_script(NOTE_TOASTS)
        page.goto(url)
        self.ready()
        # those of the test before, which would be told again, and lie over the picture
        page.evaluate(
            "toasts.splice(0); document.querySelectorAll('[data-test=toast]').forEach((each) => each.remove())"
        )

    def close(self) -> None:
        self.page.remove_listener("pageerror", self._fail)
        self.page.remove_listener("request", self._note)
        for key in ("Shift", "Alt", "Space"):  # that a test which failed left down
            self.page.keyboard.up(key)

    def _fail(self, error: Any) -> None:
        self.errors.append(str(error))

    def _note(self, request: Any) -> None:
        if "/do/" in request.url:
            self.commands.append((request.url.rsplit("/", 1)[1], request.post_data_json))

    def ready(self) -> None:
        self.page.wait_for_selector(".studio[data-ready]")
        self.until("store.frames.get(store.frame) && store.masks.get(store.frame)")
        self.drawn()

    def until_it(self, is_so: Callable[[], bool]) -> None:
        """As `wait_until`, for what the browser tells: it is listened to meanwhile."""
        wait_until(lambda: self.drawn() or is_so())

    def drawn(self) -> None:
        """Wait until the screen shows what is there."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def settled(self) -> None:
        """Wait until all commands are answered, and the masks of this frame have come and are drawn."""
        self.drawn()  # clicks have become commands
        self.until("store.busy === 0 && store.masks.isFresh(store.frame)")
        self.drawn()

    def click(self, place: tuple[float, float], **options: Any) -> None:
        self.page.mouse.click(*self.place(*place), **options)
        self.settled()

    def drag(self, *places: tuple[float, float]) -> None:
        self.page.mouse.move(*self.place(*places[0]))
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*self.place(*place), steps=4)
        self.page.mouse.up()
        self.settled()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.settled()

    def hint_at(self, place: tuple[float, float]) -> str:
        """What the line below the stage says with the pointer at a place."""
        self.page.mouse.move(*self.place(*place))
        self.drawn()
        return str(self.page.locator("#stage-hint").inner_text())

    def color_at(self, x: float, y: float) -> list[int]:
        """The colour of the stage at a pixel of the video, RGBA."""
        left, top = self.place(x, y)
        script = """([x, y]) => {
            const canvas = document.querySelector("#stage-canvas");
            const { left, top } = canvas.getBoundingClientRect();
            const at = [x - left, y - top].map((value) => Math.floor(value * devicePixelRatio));
            return [...canvas.getContext("2d").getImageData(...at, 1, 1).data];
        }"""
        return list(self.page.evaluate(script, [left, top]))

    def toast(self) -> str:
        """The sentence that was shown last, be it there still or not; each is told once."""
        self.page.wait_for_function("toasts.length > 0")
        return str(self.page.evaluate("toasts.splice(0).at(-1)"))


@pytest.fixture(scope="module")
def server(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("studio"), bundled_models())
    yield server
    server.stop()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", NUM_FRAMES)


@pytest.fixture
def token(server: Server, clip: Path) -> str:
    return server.session(clip)


@pytest.fixture(scope="module")
def tab(browser: Any, server: Server) -> Iterator[Any]:
    """A tab that tests go on with one after another: only the first has to load the page."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.set_default_timeout(WAIT_SECONDS * 1000)
    yield context.new_page()
    context.close()


@pytest.fixture
def open_page(browser: Any, tab: Any, server: Server) -> Iterator[Callable[..., Page]]:
    contexts: list[Any] = []
    pages: list[Page] = []

    def opened(token: str, at: Server = server, **options: Any) -> Page:
        if not options and not pages and at is server:
            pages.append(Page(tab, at.url(f"#{token}")))
            return pages[-1]
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 720}, **options})
        context.set_default_timeout(WAIT_SECONDS * 1000)
        contexts.append(context)
        pages.append(Page(context.new_page(), at.url(f"#{token}")))
        return pages[-1]

    yield opened
    for page in pages:
        page.close()
    for context in contexts:
        context.close()
    assert [error for page in pages for error in page.errors] == []


@pytest.fixture
def two(server: Server, token: str) -> str:
    """A session with two objects, boxes on the first frame."""
    for box in (FIRST, SECOND):
        server.do(token, "add", frame=0, counts=box_counts(*box))
    return token


# ---- run lengths ----


def test_run_lengths_are_as_cocos(open_page: Callable[..., Page], token: str) -> None:
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (1, 7), (7, 1), (5, 8), (64, 48), (90, 33)]
    masks = [rng.random(shape) < density for shape in shapes for density in (0.0, 0.02, 0.5, 1.0)]
    blob = np.zeros((300, 1300), bool)
    blob[20:290, 40:1250] = True  # runs longer than a group of bits
    masks.append(blob)
    counts = [coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode() for mask in masks]
    script = """async (given) => {
        const { runsOf, drawRuns, encodeMask, isInside } = await import("/studio/static/rle.js");
        return given.map(({ counts, width, height, places }) => {
            const runs = runsOf(counts);
            const drawn = new Uint8Array(width * height);
            const box = drawRuns(runs, height, drawn, width, 1);
            const half = new Uint8Array(Math.ceil(width / 2) * Math.ceil(height / 2));
            drawRuns(runs, height, half, Math.ceil(width / 2), 1, 2);
            const inside = places.map(([x, y]) => isInside(runs, height, x, y));
            return { drawn: [...drawn], half: [...half], box, inside, again: encodeMask(drawn, width, height) };
        });
    }"""
    places = [
        [(int(rng.integers(mask.shape[1])), int(rng.integers(mask.shape[0]))) for _ in range(5)] for mask in masks
    ]
    given = [
        {"counts": text, "width": mask.shape[1], "height": mask.shape[0], "places": at}
        for text, mask, at in zip(counts, masks, places, strict=True)
    ]
    answers = open_page(token).page.evaluate(script, given)
    for mask, text, at, answer in zip(masks, counts, places, answers, strict=True):
        assert (np.array(answer["drawn"]).reshape(mask.shape) == mask).all()
        assert (np.array(answer["half"]).reshape(mask[::2, ::2].shape) == mask[::2, ::2]).all()
        left, top, width, height = coco.toBbox(coco.encode(np.asfortranarray(mask, np.uint8)))
        assert answer["box"] == [left, top, left + width, top + height] if mask.any() else [0, 0, 0, 0]
        assert answer["inside"] == [bool(mask[y, x]) for x, y in at]
        assert answer["again"] == text


# ---- clicks, boxes, strokes ----


def test_a_click_makes_an_object_and_the_next_ones_correct_it(
    open_page: Callable[..., Page], server: Server, token: str
) -> None:
    page = open_page(token)
    assert page.hint_at(OWL).startswith("Click: new object")
    plain = page.color_at(*OWL)
    page.page.mouse.click(*page.place(*OWL))
    page.page.mouse.click(*page.place(OWL[0] + 8, OWL[1] + 10))  # before the first one is answered
    page.settled()
    assert [command for command, _ in page.commands] == ["add", "refine"]
    assert np.allclose(page.commands[0][1]["points"], [OWL], atol=0.8)
    assert page.commands[1][1]["id"] == 1 and page.commands[1][1]["labels"] == [1]
    assert page.get("store.selected") == 1
    assert page.color_at(*OWL) != plain  # the mask is seen
    assert "add to object 1" in page.hint_at((OWL[0] + 60, OWL[1]))
    page.click((OWL[0], OWL[1] + 60), button="right")
    assert page.commands[2][0] == "refine" and page.commands[2][1]["labels"] == [0]
    assert len(server.state(token)["objects"]) == 1


def test_a_double_click_is_one_click(open_page: Callable[..., Page], token: str) -> None:
    page = open_page(token)
    page.page.mouse.dblclick(*page.place(*OWL))
    page.settled()
    assert [command for command, _ in page.commands] == ["add"]


def test_what_a_click_means(open_page: Callable[..., Page], two: str) -> None:
    page = open_page(two)
    assert page.hint_at(middle(FIRST)) == "Click: select object 1"
    page.click(middle(FIRST))
    assert page.commands == [] and page.get("store.selected") == 1
    assert "add to object 1" in page.hint_at(NOTHING)  # it was chosen here: clicks go to it
    page.click(middle(SECOND))
    assert page.commands == [] and page.get("store.selected") == 2
    page.page.keyboard.press("Escape")
    assert page.get("store.selected") is None
    assert page.hint_at(NOTHING).startswith("Click: new object")


def test_the_selected_object_is_meant_near_its_mask_on_other_frames(
    open_page: Callable[..., Page], server: Server, two: str
) -> None:
    server.do(two, "set_mask", id=1, frame=1, counts=box_counts(*FIRST))
    page = open_page(two)
    page.click(middle(FIRST))
    page.press("ArrowRight")
    assert "add to object 1" in page.hint_at((FIRST[2] + 10, FIRST[3] + 10))
    assert page.hint_at(NOTHING).startswith("Click: new object")
    page.press("ArrowRight")  # where it is not seen, it takes every click
    assert "add to object 1" in page.hint_at(NOTHING)


def test_not_that_needs_an_object_that_is_seen(open_page: Callable[..., Page], two: str) -> None:
    page = open_page(two)
    page.click(NOTHING, button="right")
    assert page.toast() == "“Not that” takes away from an object: click on one first."
    page.page.keyboard.down("Alt")
    page.click(middle(SECOND))
    page.page.keyboard.up("Alt")
    [(command, args)] = page.commands
    assert command == "refine" and args["id"] == 2 and args["labels"] == [0]
    page.press("End")
    page.click(NOTHING, button="right")
    assert page.toast() == "object 2 is not seen on this frame: click on it first."


def test_a_drag_is_a_box_within_the_frame(open_page: Callable[..., Page], token: str) -> None:
    page = open_page(token)
    page.drag((40, 90), (180, 300), (-20, 200))
    [(command, args)] = page.commands
    assert command == "add"
    assert np.allclose(args["box"], [0, 90, 40, 200], atol=0.8)
    assert page.get("store.selected") == 1
    page.page.mouse.move(*page.place(200, 200))
    page.page.mouse.down()
    page.page.mouse.move(*page.place(300, 300))
    page.page.keyboard.press("Escape")
    page.page.mouse.up()
    page.settled()
    assert len(page.commands) == 1


def test_brush_and_eraser(open_page: Callable[..., Page], server: Server, two: str) -> None:
    page = open_page(two)
    page.press("b")
    assert page.hint_at(NOTHING).startswith("Paint a new object")
    page.press("]", "]", "[")
    radius = page.get("store.brushRadius")
    page.drag((250, 300), (350, 300))
    command, args = page.commands.pop()
    assert command == "add"
    mask = coco.decode({"size": [HEIGHT, WIDTH], "counts": args["counts"]}).astype(bool)
    assert mask[300, 240:360].all() and not mask[300 + int(radius) + 3].any() and not mask[300 - int(radius) - 3].any()
    assert abs(int(mask.sum()) - (100 * 2 * radius + np.pi * radius**2)) < 0.03 * mask.sum()
    page.drag((250, 320), (350, 320))  # the new one is selected
    command, args = page.commands.pop()
    assert command == "paint" and args["id"] == 3 and not args["erase"]
    page.press("e", "Escape", "Escape", "e")
    page.page.mouse.move(*page.place(150, 140))
    page.page.mouse.down()
    page.page.mouse.move(*page.place(180, 140), steps=3)
    page.drawn()
    assert page.get("store.selected") == 1 and page.commands == []
    erased = page.color_at(165, 140)  # at once, before anything is sent
    page.page.mouse.up()
    page.settled()
    command, args = page.commands.pop()
    assert command == "paint" and args["id"] == 1 and args["erase"]
    assert page.color_at(165, 140) == erased
    [cell] = [
        each for each in server.ask("GET", f"studio/{two}/masks?first=0&last=0")["frames"]["0"] if each["id"] == 1
    ]
    mask = coco.decode({"size": [HEIGHT, WIDTH], "counts": cell["counts"]})
    assert not mask[140, 150:180].any() and mask[110, 110]
    page.press("Escape", "Escape", "e")
    page.drag((560, 300), (600, 320))
    assert page.commands == [] and "select an object first" in page.toast()


def test_errors_are_one_sentence(open_page: Callable[..., Page], server: Server, two: str) -> None:
    server.do(two, "lock", id=1, is_locked=True)
    page = open_page(two)
    page.click(middle(FIRST))
    page.click((FIRST[0] + 9, FIRST[1] + 9))
    assert page.commands[0][0] == "refine"
    assert "locked" in page.toast()
    assert page.get("store.busy") == 0


def test_shift_shows_what_a_click_would_give(open_page: Callable[..., Page], token: str) -> None:
    page = open_page(token)
    before = page.color_at(*OWL)
    page.page.mouse.move(2, 2)
    page.page.keyboard.down("Shift")
    x, y = page.place(OWL[0], OWL[1] + 5)
    script = """([x, y]) => {
        const canvas = document.querySelector("#stage-canvas");
        const at = (step) => ({ clientX: x + step, clientY: y, shiftKey: true, pointerId: 1, bubbles: true });
        for (let step = -20; step <= 0; step++) canvas.dispatchEvent(new PointerEvent("pointermove", at(step)));
    }"""
    page.page.evaluate(script, [x, y])
    page.until_it(lambda: len(page.commands) == 2 and page.color_at(*OWL) != before)
    assert [command for command, _ in page.commands] == ["preview", "preview"]  # the first, and the latest since
    assert np.allclose(page.commands[1][1]["points"], [[OWL[0], OWL[1] + 5]], atol=0.8)
    page.page.keyboard.up("Shift")
    page.drawn()
    assert page.color_at(*OWL) == before
    assert page.get("store.state.objects.length") == 0


# ---- candidates ----


def candidates(kind: str, *boxes: tuple[int, int, int, int]) -> str:
    items = [
        {
            "key": key,
            "label": "thing",
            "confidence": 0.5,
            "box": box,
            "counts": box_counts(*box),
            "score": 0.9,
            "known_as": 0,
        }
        for key, box in enumerate(boxes)
    ]
    return f"store.setCandidates({{find: 'f', frame: 0, kind: '{kind}', items: {json.dumps(items)}}})"


def test_candidates_are_taken_and_left_by_clicks_on_them(open_page: Callable[..., Page], token: str) -> None:
    page = open_page(token)
    page.get(candidates("find", FIRST, SECOND))
    accepted = "store.candidates.items.map((item) => item.accepted)"
    assert page.get(accepted) == [True, True]
    assert page.hint_at(middle(FIRST)) == "Click: leave out thing"
    page.click(middle(FIRST))
    assert page.get(accepted) == [False, True]
    page.click((FIRST[0] + 9, FIRST[1] + 9))
    page.click(middle(SECOND), button="right")
    assert page.get(accepted) == [True, False]
    assert page.commands == []
    page.press("ArrowRight")  # they belong to a frame
    assert page.hint_at(middle(FIRST)).startswith("Click: new object")


def test_pieces_are_picked_by_clicks_and_put_together_by_a_line_through_them(
    open_page: Callable[..., Page], token: str
) -> None:
    page = open_page(token)
    page.get(candidates("everything", (100, 100, 200, 200), (200, 100, 300, 200), (400, 100, 500, 200)))
    items = "store.candidates.items.map(({accepted, group}) => [accepted, group])"
    assert page.get(items) == [[False, 0], [False, 1], [False, 2]]
    page.click((450, 150))
    page.drag((150, 150), (250, 150))
    assert page.get(items) == [[True, 0], [True, 0], [True, 2]]
    assert page.commands == []


# ---- zoom and pan ----


@pytest.mark.parametrize("ratio", [1, 2])
def test_clicks_are_where_one_sees_them_after_zoom_and_pan(
    open_page: Callable[..., Page], token: str, ratio: int
) -> None:
    page = open_page(token, device_scale_factor=ratio)
    canvas = page.page.locator("#stage-canvas")
    assert canvas.evaluate("(canvas) => canvas.width / canvas.clientWidth") == ratio
    page.page.mouse.move(*page.place(*OWL))
    before = page.place(*OWL)
    page.page.mouse.wheel(0, -400)
    page.until("store.zoom")
    assert np.allclose(page.place(*OWL), before, atol=0.8)  # what is below the pointer stays there
    page.page.mouse.down(button="middle")
    page.page.mouse.move(before[0] + 60, before[1] - 40, steps=3)
    page.page.mouse.up(button="middle")
    page.page.keyboard.down("Space")
    page.drag(NOTHING, (NOTHING[0] + 5, NOTHING[1] + 9))
    page.page.keyboard.up("Space")
    assert not page.get("store.playing")  # space was for the drag
    page.press("+", "-")
    page.click(OWL)
    assert np.allclose(page.commands[0][1]["points"], [OWL], atol=0.8)
    page.press("0")
    assert page.get("store.zoom") is None


def test_the_window_is_resized(open_page: Callable[..., Page], token: str) -> None:
    page = open_page(token)
    page.page.set_viewport_size({"width": 1024, "height": 768})
    page.drawn()
    page.click(OWL)
    assert np.allclose(page.commands[0][1]["points"], [OWL], atol=0.8)


def test_fingers(open_page: Callable[..., Page], two: str) -> None:
    page = open_page(two, has_touch=True, viewport={"width": 1024, "height": 768})
    touch = page.page.context.new_cdp_session(page.page)

    def send(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    page.page.touchscreen.tap(*page.place(*middle(FIRST)))
    page.settled()
    assert page.get("store.selected") == 1 and page.commands == []
    send("touchStart", page.place(*middle(FIRST)))
    page.until_it(lambda: len(page.commands) == 1)  # while the finger is held
    send("touchEnd")
    page.settled()
    [(command, args)] = page.commands
    assert command == "refine" and args["labels"] == [0]
    x, y = page.place(*NOTHING)
    scale = page.get("store.sharpWidth")
    send("touchStart", (x - 40, y), (x + 40, y))
    send("touchMove", (x - 80, y), (x + 80, y))
    send("touchEnd")
    page.settled()
    assert page.get("store.sharpWidth") == pytest.approx(2 * scale, rel=0.05)
    assert len(page.commands) == 1


# ---- keys ----


def test_without_a_mouse(open_page: Callable[..., Page], server: Server, token: str) -> None:
    page = open_page(token)
    page.press("w")  # the crosshair appears in the middle of what is seen
    page.press("a", "Alt+ArrowUp")
    page.press("Enter")
    command, args = page.commands.pop()
    [[x, y]] = args["points"]
    assert command == "add" and WIDTH / 2 - 20 < x < WIDTH / 2 and HEIGHT / 2 - 20 < y < HEIGHT / 2
    page.press("d", "Shift+Enter")
    command, args = page.commands.pop()
    assert command == "refine" and args["labels"] == [0] and args["points"][0][0] > x
    page.press("Escape", "Escape")
    assert page.get("store.selected") is None
    page.press("1")
    assert page.get("store.selected") == 1
    page.press("h")
    assert server.state(token)["objects"][0]["is_hidden"]
    page.press("h", "l")
    assert server.state(token)["objects"][0]["is_locked"]
    page.press("l", "Delete")
    assert server.state(token)["objects"] == [] and page.toast() == "Removed object 1."
    page.press("z")
    assert len(server.state(token)["objects"]) == 1
    page.press("y")
    assert server.state(token)["objects"] == []
    page.press("Control+z")
    assert len(server.state(token)["objects"]) == 1


def test_keys_that_move_in_time(open_page: Callable[..., Page], token: str) -> None:
    page = open_page(token)
    for key, frame in [
        ("ArrowRight", 1),
        (".", 2),
        ("Shift+ArrowRight", 12),
        ("ArrowLeft", 11),
        (",", 10),
        ("Shift+ArrowLeft", 0),
        ("End", NUM_FRAMES - 1),
        ("Home", 0),
    ]:
        page.page.keyboard.press(key)
        assert page.get("store.frame") == frame, key
    page.page.keyboard.press("t")
    page.page.keyboard.type("dog")  # letters go into the field
    assert page.get("store.frame") == 0 and page.get("store.tool") == "point"
    page.page.keyboard.press("Escape")
    page.page.keyboard.press("d")
    assert page.get("store.tool") == "point"


def test_the_help_lists_every_key(open_page: Callable[..., Page], token: str) -> None:
    page = open_page(token)
    page.page.keyboard.press("?")
    dialog = page.page.locator("#help-dialog")
    assert dialog.is_visible()
    keys = set(dialog.locator("kbd").all_inner_texts())
    assert {"Space", "Home", "End", "Del", "Esc", "Enter", *"←→,.NIOTPZYBE[]HL19WASD+−0"} <= keys
    page.page.keyboard.press("Escape")
    assert not dialog.is_visible()


# ---- playing, frames and masks in memory ----


def test_playing_keeps_the_videos_speed(open_page: Callable[..., Page], token: str) -> None:
    script = """async () => {
        const { Playback } = await import("/studio/static/playback.js");
        const own = window.requestAnimationFrame;
        const there = new Set([...Array(20).keys()]);
        const store = {
            frame: 0, range: null, state: { fps: 25, num_frames: 100 }, frames: { get: (frame) => there.has(frame) },
            showFrame: (frame) => (store.frame = frame), fire: () => {},
        };
        const playback = new Playback(store);
        window.requestAnimationFrame = () => 0;
        playback.play();
        const start = playback.startTime;
        const shown = [];
        for (const milliseconds of [0, 39, 41, 81, 201, 361, 801, 1001, 1301]) {
            playback.tick(start + milliseconds);
            shown.push(store.frame);
        }
        there.add(20).add(21);
        playback.tick(start + 1341); // it goes on from where it had to wait
        shown.push(store.frame);
        playback.tick(start + 1700);
        shown.push(store.frame);
        for (let frame = 22; frame < 100; frame++) there.add(frame);
        playback.tick(start + 9000);
        shown.push(store.frame);
        window.requestAnimationFrame = own;
        return [shown, playback.isPlaying];
    }"""
    shown, is_playing = open_page(token).page.evaluate(script)
    # at 25 frames per second; 20 and later ones had not come in time
    assert shown == [0, 0, 1, 2, 5, 9, 19, 19, 19, 20, 21, 99]
    assert not is_playing  # it stops at the end


def test_frames_and_masks_in_memory_are_bounded(open_page: Callable[..., Page], token: str) -> None:
    script = """async () => {
        const { FrameCache, MaskCache, wantedFrames } = await import("/studio/static/cache.js");
        const pause = () => new Promise((done) => setTimeout(done));
        let [most, atOnce] = [0, 0];
        const canvas = new OffscreenCanvas(2, 2);
        canvas.getContext("2d");
        const picture = await canvas.convertToBlob();
        const api = {
            frame: async () => {
                most = Math.max(most, ++atOnce);
                await pause();
                atOnce--;
                return picture;
            },
            masks: async (token, first, last) =>
                Object.fromEntries(Array.from({ length: last - first + 1 }, (_, index) => [first + index, []])),
        };
        const frames = new FrameCache(api, "t", [3840, 2160], 5000, () => {}, () => {});
        const masks = new MaskCache(api, "t", 5000, () => {}, () => {});
        let kept = [0, 0];
        for (let frame = 0; frame < 5000; frame += 25) {
            frames.want(frame, 1900);
            masks.want(frame);
            for (let turn = 0; turn < 3; turn++) await pause();
            kept = [Math.max(kept[0], frames.bitmaps.size), Math.max(kept[1], masks.cells.size)];
        }
        const wanted = wantedFrames(100, 40, 5000);
        frames.close();
        masks.close();
        return { most, kept, room: frames.room, wanted, ends: [wantedFrames(0, 40, 10), wantedFrames(9, 40, 10)] };
    }"""
    answer = open_page(token).page.evaluate(script)
    assert answer["most"] <= 4  # requests; the others are for commands and events
    assert answer["kept"][0] <= answer["room"] == 256 * 2**20 // (1920 * 1080 * 4)
    assert answer["kept"][1] <= 1000
    assert answer["wanted"][:5] == [100, 101, 102, 103, 99] and len(answer["wanted"]) == 40
    assert sorted(answer["wanted"]) == list(range(91, 131))
    for wanted in answer["ends"]:
        assert sorted(wanted) == list(range(10))


# ---- coming back ----


def test_a_reload_keeps_where_one_was(open_page: Callable[..., Page], two: str) -> None:
    page = open_page(two)
    page.press("ArrowRight", "ArrowRight", "2", "i", "+")
    page.get("store.setView({boxes: true, opacity: 0.25})")
    page.get("new Promise((done) => setTimeout(done, 300))")  # it is kept when one has come to rest
    before = page.get("[store.frame, store.selected, store.range, store.view, store.zoom, store.state.objects]")
    page.page.reload()
    page.ready()
    assert page.get("[store.frame, store.selected, store.range, store.view, store.zoom, store.state.objects]") == before
    assert before[:2] == [2, 2] and before[2] == {"first": 2, "last": NUM_FRAMES - 1}


def test_two_tabs_stay_equal(open_page: Callable[..., Page], two: str) -> None:
    one, other = open_page(two), open_page(two)
    one.click(middle(FIRST))
    one.press("Delete")
    other.until("store.state.objects.length === 1")
    other.settled()
    assert other.get("store.masks.get(0).map((cell) => cell.id)") == [2]
    assert other.hint_at(middle(FIRST)).startswith("Click: new object")


def test_a_server_that_starts_again_is_found_again(
    open_page: Callable[..., Page], server: Server, clip: Path, tmp_path: Path
) -> None:
    first = Server(tmp_path / "own", server.models)
    token = first.session(clip)
    page = open_page(token, at=first)
    first.stop()
    page.page.wait_for_selector("#connection:not([hidden])")
    second = Server(tmp_path / "own", server.models, first.port)
    try:
        second.do(token, "add", frame=0, counts=box_counts(*FIRST))
        page.page.wait_for_selector("#connection", state="hidden")
        page.until("store.state.objects.length === 1 && store.masks.get(0).length === 1")
    finally:
        page.page.goto("about:blank")
        second.stop()


def test_a_hidden_tab_lets_go_of_its_connection_and_catches_up(
    open_page: Callable[..., Page], server: Server, two: str
) -> None:
    page = open_page(two)
    script = """async (isHidden) => {
        Object.defineProperty(document, "hidden", { get: () => isHidden, configurable: true });
        const own = window.setTimeout;
        window.setTimeout = (fn, delay) => own(fn, delay >= 20000 ? 0 : delay);
        document.dispatchEvent(new Event("visibilitychange"));
        window.setTimeout = own;
    }"""
    page.page.evaluate(script, True)
    page.until("!store.isConnected")
    server.do(two, "remove", id=1)
    page.page.evaluate(script, False)
    page.until("store.isConnected && store.state.objects.length === 1")


def test_a_session_that_is_gone_leads_back(open_page: Callable[..., Page], server: Server, token: str) -> None:
    page = open_page(token)
    server.ask("DELETE", f"studio/{token}")
    page.page.wait_for_selector("#studio-welcome")
    assert "not there any more" in page.toast()
    page.page.goto(server.url("#nosuchsession"))
    page.page.wait_for_selector("#studio-welcome")


def test_a_job_is_followed_until_one_looks_elsewhere(open_page: Callable[..., Page], server: Server, two: str) -> None:
    page = open_page(two)
    note = "window.seen.push([store.frame, store.masks.get(store.frame)?.length])"
    page.get(f"(window.seen = [], store.on('frame', () => {note}))")
    page.get("store.startJob('propagate', {first: 0, last: 12, direction: 'forward'})")
    page.until("window.seen.some(([frame]) => frame >= 4)")  # at its end the job goes back to where it was asked for
    page.page.keyboard.press("Home")
    page.until("store.jobs.every((job) => job.state === 'done')")
    assert page.get("store.frame") == 0
    seen = page.get("window.seen")
    assert all(count == 2 for frame, count in seen if frame > 0)  # no frame is shown before its masks
