// Track: one button for what one mostly wants, the other ways folded, and progress.

import { mountAgain } from "./again.js";
import { chosenOf } from "./chosen.js";
import { h, icon } from "./dom.js";
import { counted, disclosure, drawnWhenChanged, durationText, panel, progressBar, refill, segments } from "./parts.js";

const RATE_SECONDS = 6; // over which the speed is measured

export function mountTrack(element, store) {
  const { body, note } = panel(element, "Track", "track");
  const proposal = h("div", { "aria-live": "polite" });
  const main = h("div", { class: "stack" });
  const folded = disclosure("Other ways to track", "track-options");
  const options = h("div", { class: "stack" });
  folded.querySelector(".disclosure-body").append(options);
  body.append(proposal, main, folded);
  const chosen = chosenOf(store);
  const again = mountAgain(proposal, store);
  const state = { direction: "both", span: "all", objects: "all", speed: null };

  // ---- what the button does ----

  const lastFrame = () => store.state.num_frames - 1;
  const unlocked = () => store.state.objects.filter((object) => !object.is_locked);

  /** The objects that "the selected ones" means: the chosen ones, or else the selected one. */
  function selectedIds() {
    const ids = chosen.ids.size ? [...chosen.ids] : store.selected === null ? [] : [store.selected];
    return ids.filter((id) => !store.object(id)?.is_locked);
  }

  /** What is possible now of what was asked for. */
  function wanted() {
    const selected = selectedIds();
    const objects = state.objects === "selected" && selected.length ? "selected" : "all";
    const isPossible = { range: store.range !== null, gap: objects === "selected" && selected.length === 1 }[state.span] ?? true;
    return { objects, span: isPossible ? state.span : "all", direction: state.direction, selected };
  }

  function jobArgs() {
    const { objects, span, direction, selected } = wanted();
    const ids = objects === "selected" ? { ids: selected } : {};
    if (span === "gap") return { ...ids, direction: "both", until_barrier_from: store.frame };
    if (span === "range") return { ...ids, direction, first: store.range.first, last: store.range.last };
    if (span === "here" && direction === "forward") return { ...ids, direction, first: store.frame, last: lastFrame() };
    if (span === "here" && direction === "backward") return { ...ids, direction, first: 0, last: store.frame };
    return { ...ids, direction };
  }

  function inWords() {
    const { objects, span, direction, selected } = wanted();
    const number = unlocked().length;
    const who =
      objects === "all"
        ? number === 1
          ? unlocked()[0].name
          : `All ${number} objects`
        : selected.length === 1
          ? store.object(selected[0]).name
          : counted(selected.length, "object");
    const where = {
      all: "whole video",
      here: `from frame ${store.frame}`,
      range: store.range && `frames ${store.range.first} to ${store.range.last}`,
      gap: "between the barriers around this frame",
    }[span];
    const way = span === "gap" || direction === "both" ? "both directions" : direction;
    return `${who}, ${where}, ${way}`;
  }

  const start = (kind, args) => store.startJob(kind, args).catch(() => {});

  function track() {
    again.forget(wanted().objects === "all" ? unlocked().map(({ id }) => id) : selectedIds());
    start("propagate", jobArgs());
  }

  // ---- progress ----

  /** How fast a job is, from its last reports: {frames (a second), left (seconds, or null)}; null for not known yet. */
  function measure(job) {
    if (!job || job.state !== "running") return (state.speed = null);
    const now = performance.now();
    if (state.speed?.id !== job.id) state.speed = { id: job.id, marks: [], frame: null, frames: 0 };
    const { speed } = state;
    if (job.frame !== speed.frame) speed.frames += 1;
    speed.frame = job.frame;
    if (speed.marks.at(-1)?.done !== job.done) speed.marks.push({ now, done: job.done, frames: speed.frames });
    while (speed.marks.length > 2 && now - speed.marks[0].now > 1000 * RATE_SECONDS) speed.marks.shift();
    const [first, last] = [speed.marks[0], speed.marks.at(-1)];
    const seconds = (last.now - first.now) / 1000;
    if (seconds < 0.5) return null;
    return {
      frames: (last.frames - first.frames) / seconds,
      left: last.done > first.done ? ((job.total - job.done) * seconds) / (last.done - first.done) : null,
    };
  }

  function drawProgress(job) {
    const rate = measure(job);
    const words =
      job.state === "waiting"
        ? "Waiting for its turn…"
        : [
            `${Math.round((100 * job.done) / Math.max(1, job.total))} %`,
            job.frame !== null && `frame ${job.frame}`,
            rate && `${rate.frames.toFixed(rate.frames < 10 ? 1 : 0)} frames/s`,
            rate?.left && `${durationText(rate.left)} left`,
          ]
            .filter(Boolean)
            .join(" · ");
    return h(
      "div",
      { class: "progress", "data-test": "track-progress" },
      h(
        "div",
        { class: "row spread" },
        h("strong", {}, job.label || "Tracking"),
        h(
          "button",
          { type: "button", "data-key": "track-cancel", "data-test": "track-cancel", onclick: () => store.cancelJob(job.id) },
          job.state === "waiting" ? "Cancel" : "Stop",
        ),
      ),
      progressBar("Tracked so far", job.state === "waiting" ? null : job.done / Math.max(1, job.total)),
      h("p", { class: "hint" }, words),
    );
  }

  function drawMain() {
    const job = store.changingJob;
    const { unfinished, objects } = store.state;
    note.textContent = job?.state === "running" ? `${Math.round((100 * job.done) / Math.max(1, job.total))} %` : "";
    folded.hidden = Boolean(job) || !objects.length;
    if (job) return refill(main, drawProgress(job));
    if (!objects.length)
      return refill(main, h("p", { class: "empty" }, "Find or click something first; then it is followed through the video."));
    refill(
      main,
      unfinished &&
        h(
          "div",
          { class: "notice", "data-test": "unfinished" },
          h("p", {}, `Tracking of frames ${unfinished.first} to ${unfinished.last} was stopped. What was done is kept.`),
          h(
            "button",
            { type: "button", "data-key": "resume", "data-test": "resume", onclick: () => start("resume", {}) },
            "Go on",
          ),
        ),
      h(
        "button",
        {
          type: "button",
          class: "primary big",
          disabled: !unlocked().length,
          "data-key": "track-run",
          "data-test": "track-run",
          onclick: track,
        },
        icon("play"),
        "Track",
      ),
      h("p", { class: "hint" }, unlocked().length ? inWords() : "All objects are locked."),
    );
  }

  // ---- other ways ----

  function drawOptions() {
    const { objects, span, direction, selected } = wanted();
    const who =
      selected.length === 1 ? store.object(selected[0]).name : selected.length ? `${selected.length} selected` : "Selected";
    const choose = (key) => (value) => {
      state[key] = value;
      draw();
    };
    const spans = { all: "Whole video", here: "From here", range: "In the range", gap: "Until the barriers" };
    const hint =
      {
        here: direction === "both" ? "In both directions from here is the whole video." : null,
        gap: "From the corrected frame before this one to the one after it.",
      }[span] ??
      (!store.range ? "Mark a range on the timeline to track only that. “Until the barriers” is for one selected object." : null);
    refill(
      options,
      h(
        "div",
        { class: "field" },
        h("span", {}, "Objects"),
        segments(
          "Objects",
          "track-objects",
          { all: "All", selected: who },
          objects,
          choose("objects"),
          selected.length ? [] : ["selected"],
        ),
      ),
      h(
        "div",
        { class: "field" },
        h("span", {}, "Where"),
        segments("Where", "track-span", spans, span, choose("span"), [
          ...(store.range ? [] : ["range"]),
          ...(objects === "selected" && selected.length === 1 ? [] : ["gap"]),
        ]),
      ),
      h(
        "div",
        { class: "field" },
        h("span", {}, "Direction"),
        segments(
          "Direction",
          "track-direction",
          { backward: "Backward", both: "Both", forward: "Forward" },
          span === "gap" ? "both" : direction,
          choose("direction"),
          span === "gap" ? ["backward", "forward"] : [],
        ),
      ),
      hint && h("p", { class: "hint" }, hint),
    );
  }

  // ---- all of it ----

  function draw() {
    drawMain();
    drawOptions();
    again.draw();
  }

  const drawChanged = drawnWhenChanged(
    () => [store.state.objects, store.state.unfinished, store.selected, [...chosen.ids], store.range, store.frame],
    draw,
  );
  for (const name of ["state", "selected", "range", "playing"]) store.on(name, drawChanged);
  store.on("frame", () => store.playing || drawChanged());
  chosen.on(drawChanged);
  let wasBusy = false;
  store.on("jobs", () => {
    const isBusy = store.changingJob !== null;
    if (isBusy) drawMain();
    if (isBusy !== wasBusy) draw();
    wasBusy = isBusy;
  });
  draw();
}
