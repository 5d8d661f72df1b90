// The line above the timeline's lanes: playing, the frame's number and time, the range, zoom.

import { clamp, h, icon, iconButton, timeText } from "./dom.js";
import { doubtAfter } from "./doubts.js";
import { refill } from "./parts.js";
import { legend } from "./timeline_legend.js";

/** @param on {zoom(factor), fit(), fold(isFolded)}. */
export function timelineBar(store, on) {
  const { num_frames: numFrames, fps } = store.state;
  const play = iconButton("play", "Play", () => (store.playing ? store.pause() : store.play()), {
    key: "Space",
    "data-test": "play",
  });
  const number = h("input", {
    type: "text",
    inputmode: "numeric",
    class: "frame-number",
    "aria-label": `Frame number, 0 to ${numFrames - 1}`,
    "data-test": "frame-number",
    size: String(numFrames).length,
    onkeydown: (event) => {
      event.stopPropagation();
      if (event.key === "Enter") goToNumber();
      if (event.key === "Escape") showNumber();
    },
    onblur: () => goToNumber(),
  });
  const goToNumber = () => {
    const frame = Number.parseInt(number.value, 10);
    if (Number.isFinite(frame) && frame !== store.frame) store.setFrame(clamp(frame, 0, numFrames - 1));
    showNumber();
  };
  const time = h("span", { class: "timeline-time muted", "data-test": "time" });
  const showNumber = () => {
    number.value = String(store.frame);
    time.textContent = `${timeText(store.frame, fps)} / ${timeText(numFrames - 1, fps)}`;
  };
  const doubt = h(
    "button",
    {
      type: "button",
      class: "quiet",
      "data-test": "next-doubt",
      "aria-label": "Next doubtful place",
      title: "Next doubtful place",
      onclick: () => goToDoubt(store),
    },
    icon("warning"),
    h("span", {}, "Next doubt"),
  );
  const range = h("span", { class: "row", role: "group", "aria-label": "Range" });
  const drawRange = () =>
    refill(
      range,
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          title: "The range begins at this frame (I)",
          "data-key": "range-in",
          "data-test": "range-in",
          onclick: () => setEnd(store, "first"),
        },
        "In",
      ),
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          title: "The range ends at this frame (O)",
          "data-key": "range-out",
          "data-test": "range-out",
          onclick: () => setEnd(store, "last"),
        },
        "Out",
      ),
      store.range && h("span", { class: "range-words", "data-test": "range" }, `${store.range.first}–${store.range.last}`),
      store.range &&
        iconButton("close", "No range", () => store.setRange(null), { "data-key": "range-none", "data-test": "range-none" }),
    );
  const fold = h("button", {
    type: "button",
    class: "icon-button fold-lanes",
    "aria-label": "Lanes",
    title: "Hide or show the lanes",
    "aria-expanded": "true",
    "data-test": "fold-timeline",
    onclick: () => {
      const isOpen = fold.getAttribute("aria-expanded") !== "true";
      fold.setAttribute("aria-expanded", String(isOpen));
      on.fold(!isOpen);
    },
  });
  const showPlaying = () => {
    play.replaceChildren(icon(store.playing ? "pause" : "play"));
    play.setAttribute("aria-label", store.playing ? "Pause" : "Play");
  };
  const showDoubt = () => (doubt.disabled = doubtAfter(store, store.frame) === null);
  store.on("frame", () => document.activeElement !== number && showNumber());
  store.on("playing", showPlaying);
  store.on("range", drawRange);
  store.on("doubts", showDoubt);
  showNumber();
  drawRange();
  showDoubt();
  return h(
    "div",
    { class: "timeline-bar" },
    h(
      "div",
      { class: "row", role: "group", "aria-label": "Playing" },
      iconButton("first", "First frame", () => store.setFrame(store.range?.first ?? 0), { "data-test": "first-frame" }),
      iconButton("prev", "One frame back", () => store.step(-1), { key: "←", "data-test": "step-back" }),
      play,
      iconButton("next", "One frame on", () => store.step(1), { key: "→", "data-test": "step-on" }),
      iconButton("last", "Last frame", () => store.setFrame(store.range?.last ?? numFrames - 1), { "data-test": "last-frame" }),
    ),
    h(
      "label",
      { class: "row frame-place" },
      h("span", { class: "muted" }, "Frame"),
      number,
      h("span", { class: "muted" }, `of ${numFrames - 1}`),
    ),
    time,
    h("span", { class: "spacer" }),
    doubt,
    h("span", { class: "divider" }),
    range,
    h("span", { class: "divider" }),
    h(
      "div",
      { class: "row", role: "group", "aria-label": "Zoom in time" },
      iconButton("minus", "Show more frames", () => on.zoom(2), { "data-test": "zoom-out" }),
      iconButton("plus", "Show fewer frames, larger", () => on.zoom(0.5), { "data-test": "zoom-in" }),
      iconButton("fit", "Show the whole video", () => on.fit(), { "data-test": "zoom-fit" }),
    ),
    legend(),
    fold,
  );
}

function setEnd(store, end) {
  const last = store.state.num_frames - 1;
  const range = store.range ?? { first: 0, last };
  const next = { ...range, [end]: store.frame };
  if (next.first > next.last) next[end === "first" ? "last" : "first"] = end === "first" ? last : 0;
  store.setRange(next);
}

function goToDoubt(store) {
  const doubt = doubtAfter(store, store.frame);
  if (!doubt) return;
  store.select(doubt.id);
  store.setFrame(doubt.frame);
}
