"""The panels and the timeline of the page, in a real browser against a real server with models that need no weights."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision as sv

pytest.importorskip("gradio", reason="the page needs the extra `app`: pip install .[app]")

from fake_follower import picture
from PIL import Image
from session_parts import NUM_FRAMES, SIZE, DriftingFollower
from studio_browser import WAIT_SECONDS, Server, Tab, wait_until

from grounded_sam2.masks import boxes_around
from studio import Models, routes

DOG, CAT = 40, 90  # colours
CONFIDENCE = {"dog": 0.8, "cat": 0.3}
LAST = NUM_FRAMES - 1
ALL_TRACKED = (
    "Object.values(store.timeline?.objects ?? { no: { states: [''] } }).every((o) => o.states.every((s) => s[0]))"
)


class ByColour:
    """Finds dogs and cats by their colours, and is less sure of cats."""

    def detect(
        self, images: np.ndarray, text_prompt: str, *, box_threshold: Any, text_threshold: Any
    ) -> list[sv.Detections]:
        prompt = text_prompt.replace("@0.2", "")
        own = {"cat": 0.2} if "cat@0.2" in text_prompt else {}
        found = [
            (name, (np.abs(images.astype(int) - colour) < 12).all(-1))
            for name, colour in (("dog", DOG), ("cat", CAT))
            if name in prompt and CONFIDENCE[name] >= own.get(name, box_threshold)
        ]
        masks = np.array([mask for _, mask in found], bool).reshape(-1, *images.shape[:2])
        return [
            sv.Detections(
                boxes_around(masks) if found else np.zeros((0, 4), np.float32),
                confidence=np.array([CONFIDENCE[name] for name, _ in found], np.float32),
                class_id=np.arange(len(found)),
                data={"class_name": np.array([name for name, _ in found], str)},
            )
        ]


class Page(Tab):
    """The studio in a tab; elements by their `data-test`."""

    def the(self, name: str) -> Any:
        return self.page.locator(f"[data-test='{name}']")

    def see(self, name: str, text: str = "") -> Any:
        """Wait until an element is shown, with a text in it."""
        found = self.the(name).filter(has_text=text).first
        found.wait_for()
        return found

    def gone(self, name: str) -> None:
        self.the(name).first.wait_for(state="detached")

    def click(self, *names: str, **options: Any) -> None:
        for name in names:
            self.the(name).click(**options)

    def open(self, name: str) -> None:
        """Unfold what is folded."""
        details = self.the(name)
        if details.get_attribute("open") is None:
            details.locator("summary").click()

    def type_words(self, words: str) -> None:
        self.the("find-words").press_sequentially(words)

    def take_sample(self) -> None:
        self.click("sample-parade")
        self.see("timeline-chart")

    def find(self, words: str, number: int) -> None:
        """Find by words and accept all."""
        self.type_words(words)
        self.page.keyboard.press("Enter")
        self.see("accept", f"Accept {number}")
        self.click("accept")
        self.see(f"object-{number}")

    def track(self) -> None:
        self.click("track-run")
        # the timeline may say so before the server is done, and while the page has not heard of the job yet
        self.until(f"{ALL_TRACKED} && store.changingJob === null && store.state.undo === 'propagate'")
        self.see("track-run")


@pytest.fixture(scope="module")
def server(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose sample is a dog and a cat on 12 frames, who walk to the right."""
    folder = tmp_path_factory.mktemp("panels")
    path = folder / "walk.zip"
    path.write_bytes(zipped_frames())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes, "SAMPLES", {"parade": ("Two animals", path)})
        patch.setattr("os.fsync", lambda number: None)
        server = Server(folder / "sessions", Models(DriftingFollower(), {"colours": ByColour, "others": ByColour}))
        yield server
        server.stop()


@pytest.fixture(scope="module")
def tab(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True)
    context.set_default_timeout(WAIT_SECONDS * 1000)
    yield context.new_page()
    context.close()


@pytest.fixture
def page(tab: Any, server: Server) -> Iterator[Page]:
    """The first page, in a browser that knows no session."""
    errors: list[str] = []

    def note(error: Any) -> None:
        errors.append(str(error))

    tab.on("pageerror", note)
    if not tab.url.startswith(server.url()):
        tab.goto(server.url("#"))  # once; then from page to page
    tab.evaluate("localStorage.clear(); location.hash = '';")
    page = Page(tab)
    page.see("sample-parade")
    yield page
    tab.remove_listener("pageerror", note)
    assert errors == []


def zipped_frames() -> bytes:
    """A zip of PNG images."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for t in range(NUM_FRAMES):
            image = io.BytesIO()
            Image.fromarray(picture({DOG: (2 + t, 4, 12 + t, 14), CAT: (2 + t, 30, 14 + t, 40)}, SIZE)).save(
                image, "PNG"
            )
            archive.writestr(f"{t}.png", image.getvalue())
    return packed.getvalue()


# ---- from the first page to the last ----


def test_from_the_sample_to_a_download(page: Page, server: Server, tmp_path: Path) -> None:
    page.take_sample()
    page.type_words("dog.cat@0.2,")
    assert page.the("phrase").all_inner_texts() == ["dog\n×", "cat\n≥ 0.20\n×"]
    page.page.keyboard.press("Enter")
    page.see("accept", "Accept 2")
    assert page.get("store.state.search.text_prompt") == "dog. cat@0.2."
    page.click("item-1")
    page.see("accept", "Accept 1")
    page.click("item-1", "accept")
    page.see("toast", "2 objects added")
    assert page.get("store.selected") == 1

    page.track()
    page.the("object-1").dblclick()
    page.page.keyboard.type("Rex")
    page.page.keyboard.press("Enter")
    page.see("object-1", "Rex")
    assert page.get("store.object(1).name") == "Rex"

    page.click("menu-1", "do-merge-1")
    page.see("merge-form")
    page.click("merge-run")
    page.gone("object-2")
    page.see("toast", "cat 2 merged into Rex.").get_by_role("button", name="Undo").click()
    page.see("object-2")
    assert page.get("store.state.undo") == "rename"

    page.open("results-video")
    page.click("make-gif")
    with page.page.expect_download() as download:
        page.the("file-gif").click()
    assert download.value.suggested_filename == "walk-annotated.gif"
    with Image.open(download.value.path()) as made:
        assert made.format == "GIF"

    page.page.reload()
    page.see("object-1", "Rex")
    page.page.locator("#all-sessions").click()
    page.see("known", "walk.zip").click()
    page.see("object-1", "Rex")
    page.page.locator("#all-sessions").click()
    page.click("known-remove", "known-remove-sure")
    page.gone("known")


# ---- the first page ----


def test_a_dropped_zip_is_opened_and_other_files_are_refused_in_one_sentence(page: Page) -> None:
    drop = """([name, text]) => {
        const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        const carried = new DataTransfer();
        for (const each of name.split("|")) carried.items.add(new File([bytes], each));
        const target = document.querySelector("[data-test=drop]");
        for (const type of ["dragenter", "dragover", "drop"])
            target.dispatchEvent(new DragEvent(type, { dataTransfer: carried, bubbles: true, cancelable: true }));
    }"""
    import base64

    zipped = base64.b64encode(zipped_frames()).decode()
    page.page.evaluate(drop, ["empty.mp4", ""])
    assert page.see("problem").inner_text() == "empty.mp4 is empty."
    page.page.evaluate(drop, ["one.mp4|two.mp4", zipped])
    assert "only images" in page.see("problem", "at a time").inner_text()
    page.page.evaluate(drop, ["notes.mp4", base64.b64encode(b"no video").decode()])
    sentence = page.see("problem", "notes.mp4").inner_text()
    assert "\n" not in sentence and "Traceback" not in sentence
    page.page.evaluate(drop, ["walk.zip", zipped])
    page.see("timeline-chart")
    assert page.get("store.state.num_frames") == NUM_FRAMES


def test_several_images_are_a_video(page: Page) -> None:
    with zipfile.ZipFile(io.BytesIO(zipped_frames())) as archive:
        files = [{"name": f"{t}.png", "mimeType": "image/png", "buffer": archive.read(f"{t}.png")} for t in range(3)]
    page.the("file").set_input_files(files)
    page.see("timeline-chart")
    assert page.get("[store.state.num_frames, store.state.name]") == [3, "3 images"]


# ---- find ----


def test_nothing_found_is_said_and_a_lower_threshold_is_proposed(page: Page) -> None:
    page.take_sample()
    page.type_words("cat")
    page.page.keyboard.press("Enter")
    assert "frame 0" in page.see("nothing").inner_text()
    assert page.the("find-lower").inner_text() == "Try from 0.25 on"
    page.click("find-lower")
    page.see("accept", "Accept 1")
    page.click("accept")
    page.see("object-1")
    page.click("find-run")
    page.see("found", "already cat 1")
    assert page.the("accept").is_disabled()
    page.click("discard")
    page.open("find-options")
    assert page.the("detector").locator("option").all_inner_texts() == ["colours", "others"]


def test_find_new_ones_while_tracking(page: Page) -> None:
    page.take_sample()
    page.type_words("dog.")
    page.open("find-follow")
    page.the("find-every").fill("5")
    page.click("follow-and-find")
    page.see("object-1")
    page.until("store.changingJob === null && store.timeline?.objects[1]?.states.every(([name]) => name)")


PROMPTS = [
    ("", []),
    ("dog", [["dog", None]]),
    (
        "Dog. red  ball@0.4, 3.5 inch disk; dog\nnot a cat.",
        [["dog", None], ["red ball", 0.4], ["3.5 inch disk", None], ["not a cat", None]],
    ),
    ("e-scooter@.3=kick scooter. ...", [["e-scooter=kick scooter", 0.3]]),
]


def test_prompts_are_read_and_written_as_the_library_does(page: Page) -> None:
    script = """async (prompts) => {
        const { readTerms, writeTerms } = await import("/studio/static/prompt_text.js");
        const pairs = (prompt) => readTerms(prompt).map(({ text, threshold }) => [text, threshold]);
        return prompts.map((prompt) => [pairs(prompt), writeTerms(readTerms(prompt))]);
    }"""
    from grounded_sam2.prompts import read_prompt

    for (prompt, expected), (terms, written) in zip(
        PROMPTS, page.page.evaluate(script, [prompt for prompt, _ in PROMPTS]), strict=True
    ):
        assert terms == expected
        assert not prompt or read_prompt(written) == read_prompt(prompt)


# ---- objects ----


def test_what_can_be_done_to_objects(page: Page) -> None:
    page.take_sample()
    page.find("dog. cat@0.2.", 2)
    page.track()
    page.the("color-2").fill("#123456")
    page.until("store.object(2).color === '#123456'")
    page.click("hide-2", "lock-2")
    page.until("store.object(2).is_hidden && store.object(2).is_locked")
    page.click("menu-2")
    assert page.the("do-remove-2").is_disabled() and page.the("do-rename-2").is_disabled()
    page.page.keyboard.press("Escape")
    page.click("lock-2")
    page.until("!store.object(2).is_locked")

    page.the("frame-number").fill("6")
    page.page.keyboard.press("Enter")
    page.click("menu-1", "do-pin-1")
    page.until("store.object(1).given.join() === '0,6'")
    page.click("menu-1", "do-release-1")
    page.until("store.object(1).given.join() === '0'")
    page.click("menu-1", "do-split-1")
    page.see("object-3")
    assert page.get("store.selected") == 3
    page.click("menu-2", "do-swap-2")
    page.the("swap-other").select_option("3")
    page.click("swap-run")
    page.see("toast", "swapped from frame 6 on")
    assert page.get("store.state.undo") == "swap"
    page.click("range-in", "menu-2", "do-clear-range-2")
    page.until("store.state.undo === 'clear'")

    page.click("choose-1", "choose-3", "bulk-merge")
    page.gone("object-3")
    page.click("menu-1", "do-remove-1")
    page.gone("object-1")
    for _ in range(3):
        page.see("toast")
        page.page.locator("#undo").click()
    page.see("object-3")


def refuse(page: Page, command: str) -> None:
    answer = {"status": 409, "content_type": "application/json", "body": '{"error": "Not now."}'}
    page.page.route(f"**/do/{command}", lambda route: route.fulfill(**answer))


def test_a_colour_that_is_being_picked_arrives_though_the_list_changes(page: Page, server: Server) -> None:
    page.take_sample()
    page.find("dog. cat@0.2.", 2)
    page.click("color-2")  # opens the browser's own window
    page.page.evaluate("window.picker = document.querySelector('[data-test=color-2]')")
    server.do(page.get("store.token"), "rename", id=1, name="Rex")
    page.until("store.object(1).name === 'Rex'")
    assert page.page.evaluate("window.picker.isConnected")
    page.the("color-2").fill("#123456")
    page.until("store.object(2).color === '#123456'")
    page.see("object-1", "Rex")
    page.click("color-2")
    server.do(page.get("store.token"), "rename", id=1, name="Bello")
    page.click("object-1")  # nothing was picked
    page.see("object-1", "Bello")


def test_a_name_and_a_colour_that_are_refused(page: Page) -> None:
    page.take_sample()
    page.find("dog. cat@0.2.", 2)
    color = page.the("color-1").input_value()
    refuse(page, "recolor")
    page.the("color-1").fill("#123456")
    page.see("toast", "Not now.")
    page.until("document.querySelector('[data-test=color-1]').value !== '#123456'")
    assert page.the("color-1").input_value() == color
    refuse(page, "rename")
    page.the("object-1").dblclick()
    page.page.keyboard.type("Rex")
    page.page.keyboard.press("Enter")
    page.until("document.activeElement.dataset.test === 'rename-1' && document.activeElement.value === 'Rex'")
    page.page.unroute("**/do/rename")
    page.page.unroute("**/do/recolor")
    page.page.keyboard.press("Enter")
    page.see("object-1", "Rex")


# ---- track, review ----


def test_other_ways_to_track(page: Page) -> None:
    page.take_sample()
    page.find("dog. cat@0.2.", 2)
    page.the("frame-number").fill("4")
    page.page.keyboard.press("Enter")
    page.open("track-options")
    page.the("track-objects-selected").check()
    page.the("track-span-here").check()
    page.the("track-direction-forward").check()
    with page.page.expect_request("**/jobs") as request:
        page.click("track-run")
    assert request.value.post_data_json == {
        "kind": "propagate",
        "ids": [1],
        "direction": "forward",
        "first": 4,
        "last": LAST,
    }


def test_a_correction_of_what_was_tracked_is_tracked_again_between_its_barriers(page: Page) -> None:
    page.take_sample()
    page.find("dog.", 1)
    page.track()
    assert page.the("track-again").count() == 0
    page.the("frame-number").fill("5")
    page.page.keyboard.press("Enter")
    page.get("store.do('paint', { id: 1, frame: 5, stroke: [[50, 40]], radius: 4 })")
    assert page.see("track-again").inner_text() == f"Track 0 to {LAST} again"
    with page.page.expect_request("**/jobs") as request:
        page.click("track-again")
    assert request.value.post_data_json == {
        "kind": "propagate",
        "ids": [1],
        "direction": "both",
        "until_barrier_from": 5,
    }
    page.gone("track-again")
    page.until("store.changingJob === null && store.object(1).given.join() === '0,5'")


def test_a_correction_is_seen_as_one_though_the_timeline_comes_late(page: Page) -> None:
    page.take_sample()
    page.find("dog.", 1)
    page.get(
        "((at, wait) => { store.api.timeline = (token) => wait.then(() => at(token)); })("
        "store.api.timeline.bind(store.api), new Promise((go) => setTimeout(go, 1500)))"
    )
    page.get("store.startJob('propagate', { ids: [1] })")
    page.until("store.changingJob === null && store.jobs.length > 0")
    page.get("store.do('paint', { id: 1, frame: 5, stroke: [[50, 40]], radius: 4 })")
    assert not page.get("(store.timeline.objects[1]?.states ?? []).some(([name]) => name === 'seen')")
    assert page.see("track-again").inner_text() == f"Track 0 to {LAST} again"


def test_a_correction_before_tracking_is_none_afterwards(page: Page) -> None:
    page.take_sample()
    page.find("dog.", 1)
    page.get("store.do('paint', { id: 1, frame: 0, stroke: [[50, 40]], radius: 4 })")
    page.get("store.startJob('propagate', { ids: [1] })")
    page.until(ALL_TRACKED)
    assert page.the("track-again").count() == 0


def test_review_pins_what_looks_right_and_goes_on(page: Page) -> None:
    page.take_sample()
    page.find("dog. cat@0.2.", 2)
    page.track()
    for frame in (4, 8):  # the cat is said to be where the dog is: the dog is doubted there
        dog = f"(await store.api.masks(store.token, {frame}, {frame}))[{frame}][0].counts"
        page.get(f"store.do('set_mask', {{ id: 2, frame: {frame}, counts: {dog} }})")
    page.until("store.doubts.length === 2")
    assert page.see("doubt-0").inner_text().split("\n")[:3] == ["It lies on another object", "dog 1,", "frame 4"]
    assert page.the("looks-right").is_disabled()
    page.click("review-next")
    assert page.get("[store.frame, store.selected]") == [4, 1]
    page.click("looks-right")
    page.see("toast", "dog 1 is right on frame 4")
    page.until("store.frame === 8 && store.object(1).given.join() === '0,4' && store.doubts.length === 1")
    page.the("frame-number").fill("2")
    page.page.keyboard.press("Enter")
    page.click("next-doubt")
    assert page.get("store.frame") == 8
    page.click("looks-right")
    page.see("review", "Nothing looks doubtful")


# ---- the timeline ----


def test_the_timeline_by_mouse_and_keys(page: Page) -> None:
    page.take_sample()
    page.find("dog. cat@0.2.", 2)
    chart = page.the("timeline-chart")
    box = chart.bounding_box()
    page.page.mouse.click(box["x"] + box["width"] * 6.5 / NUM_FRAMES, box["y"] + 8)
    page.until("store.frame === 6")
    assert chart.get_attribute("aria-valuenow") == "6" and chart.get_attribute("role") == "slider"
    for key, frame in [("ArrowRight", 7), ("ArrowLeft", 6), ("End", LAST), ("Home", 0)]:
        page.page.keyboard.press(key)
        page.until(f"store.frame === {frame}")
    page.the("frame-number").fill("3")
    page.page.keyboard.press("Enter")
    page.click("range-in")
    assert page.see("range").inner_text() == f"3–{LAST}"
    page.page.mouse.move(box["x"] + box["width"], box["y"] + 8)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + box["width"] * 9 / NUM_FRAMES, box["y"] + 8, steps=3)
    page.page.mouse.up()
    assert page.get("store.range") == {"first": 3, "last": 8}
    page.click("lane-2")
    assert page.get("store.selected") == 2


def test_states_become_one_number_for_each_frame(page: Page) -> None:
    script = """async () => {
        const { codesOf, stateName } = await import("/studio/static/timeline_draw.js");
        const runs = [["", 2], ["corrected", 1], ["seen", 3], ["hidden", 1], ["guessed", 1], ["lost", 2]];
        return [...codesOf(runs, 10)].map(stateName);
    }"""
    expected = ["", "", "corrected", *["seen"] * 3, "hidden", "guessed", "lost", "lost"]
    assert page.page.evaluate(script) == expected


# ---- the rest ----


def test_a_video_that_is_ready_when_one_has_gone_on_with_another(page: Page, server: Server, tmp_path: Path) -> None:
    page.take_sample()
    first = page.get("store.token")
    page.page.evaluate("location.hash = ''")
    page.see("sample-parade")
    held: list[Any] = []
    page.page.route("**/studio/sessions", lambda route: held.append(route))
    clip = tmp_path / "other.zip"
    clip.write_bytes(zipped_frames())
    page.the("file").set_input_files(clip)
    wait_until(lambda: page.the("drop").count() and held)
    second = tmp_path / "second.zip"
    second.write_bytes(clip.read_bytes())
    page.the("file").set_input_files(second)
    page.see("problem", "One after another")
    page.the("known").click()
    page.see("timeline-chart")
    held[0].continue_()
    page.page.unroute("**/studio/sessions")
    page.see("toast", "other.zip is ready")
    assert page.get("store.token") == first
    page.page.get_by_role("button", name="Open", exact=True).click()
    page.page.locator(".video-name", has_text="other.zip").wait_for()


def test_an_address_that_names_nothing(page: Page) -> None:
    page.page.evaluate("location.hash = '#%E0%A4%A'")
    page.see("toast", "not there any more")
    page.see("sample-parade")


def test_the_page_is_as_high_as_the_window_and_a_narrow_one_shows_the_picture(page: Page) -> None:
    page.take_sample()
    page.find("dog. cat@0.2.", 2)
    page.track()
    dog = "(await store.api.masks(store.token, 4, 4))[4][0].counts"
    page.get(f"store.do('set_mask', {{ id: 2, frame: 4, counts: {dog} }})")  # a doubt is listed
    page.see("doubt-0")
    root = "document.getElementById('studio-root')"
    assert page.page.evaluate(f"{root}.scrollHeight <= {root}.clientHeight")
    page.page.set_viewport_size({"width": 390, "height": 780})
    page.until("store")
    picture, steps = (page.page.locator(name).bounding_box() for name in ("#stage-canvas", ".studio-side"))
    page.page.set_viewport_size({"width": 1280, "height": 720})
    assert picture["width"] > 300 and picture["height"] > 200
    assert steps["width"] == 390 and steps["y"] >= picture["y"] + picture["height"] and steps["height"] > 150


def test_results_are_grouped_and_unknown_ones_shown(page: Page) -> None:
    script = """async (results) => {
        const { groupsOf } = await import("/studio/static/result_kinds.js");
        return groupsOf(results).map(([title, entries]) => [title, entries.map((entry) => entry.kind)]);
    }"""
    results = [{"kind": kind, "label": kind, "takes_objects": False} for kind in ("coco", "video", "hologram", "blur")]
    assert page.page.evaluate(script, results) == [
        ["Video", ["video"]], ["Hide something", ["blur"]], ["Masks and data", ["coco"]], ["Others", ["hologram"]],
    ]  # fmt: skip
    assert page.page.evaluate(script, []) == []


@pytest.mark.parametrize("size", [(1280, 720), (1024, 768)])
def test_everything_has_a_name_and_nothing_is_beside_the_screen(page: Page, size: tuple[int, int]) -> None:
    page.page.set_viewport_size({"width": size[0], "height": size[1]})
    page.take_sample()
    page.find("dog. cat@0.2.", 2)
    page.click("menu-1")
    script = """() => {
        const all = [...document.querySelectorAll(".studio :is(button, input, select, a)")];
        const shown = all.filter((element) => element.checkVisibility());
        const labels = (element) => [...(element.labels ?? [])].map((label) => label.innerText).join("");
        const isNamed = (element) => element.getAttribute("aria-label") || element.innerText?.trim() || labels(element);
        const isWide = (element) => element.scrollWidth > element.clientWidth;
        const nameless = shown.filter((element) => !isNamed(element)).map((element) => element.outerHTML);
        const parts = [".studio-side", ".timeline-bar", ".studio-header"];
        return [shown.length, nameless, parts.filter((name) => isWide(document.querySelector(name)))];
    }"""
    number, nameless, wide = page.page.evaluate(script)
    page.page.set_viewport_size({"width": 1280, "height": 720})
    assert number > 40 and nameless == [] and wide == []
