// After a correction of what was tracked: the frames around it are to be tracked again, and the rest is not.

import { h, iconButton } from "./dom.js";
import { counted, refill } from "./parts.js";

const CORRECTIONS = new Set(["refine", "paint", "set_mask"]);

/** The proposal in an element. @returns {forget(ids), draw()}: what was tracked again in another way is to be forgotten. */
export function mountAgain(place, store) {
  const corrected = new Map(); // object id → Set of frames
  const start = (args) => store.startJob("propagate", args).catch(() => {});

  /** The barriers around a frame of an object, or the ends of the video. */
  function gapAround(object, frame) {
    const before = object.given.filter((given) => given < frame).at(-1) ?? 0;
    return [before, object.given.find((given) => given > frame) ?? store.state.num_frames - 1];
  }

  /** Whether an object was tracked somewhere between two frames. */
  function isTracked(id, first, last) {
    let start = 0;
    for (const [name, length] of store.timeline?.objects[id]?.states ?? []) {
      if (name && name !== "corrected" && start <= last && start + length > first) return true;
      start += length;
    }
    return false;
  }

  /** A command was given: remember what it corrected. */
  function note({ command, args }) {
    const object = CORRECTIONS.has(command) ? store.object(args.id) : null;
    if (object) {
      corrected.set(object.id, new Set([...(corrected.get(object.id) ?? []), args.frame]));
    } else if (command === "undo" || command === "redo" || command === "remove") {
      corrected.clear();
    }
    draw();
  }

  /** What is to be tracked again: [id, frame, first, last], the barriers around each corrected frame that was tracked. */
  function openGaps() {
    const objects = [...corrected.keys()].map((id) => store.object(id)).filter((object) => object && !object.is_locked);
    return objects
      .flatMap((object) => [...corrected.get(object.id)].map((frame) => [object.id, frame, ...gapAround(object, frame)]))
      .filter(([id, , first, last]) => isTracked(id, first, last));
  }

  /** Keep what is still open: what a person gave before anything was tracked is no correction of what comes now. */
  function keep(gaps) {
    corrected.clear();
    for (const [id, frame] of gaps) corrected.set(id, new Set([...(corrected.get(id) ?? []), frame]));
  }

  function trackAgain() {
    const gaps = openGaps();
    const [[id, frame]] = gaps;
    if (gaps.length === 1) start({ ids: [id], direction: "both", until_barrier_from: frame });
    else start({ ids: [...new Set(gaps.map(([each]) => each))], direction: "both", ...spanOf(gaps) });
    corrected.clear();
    draw();
  }

  const spanOf = (gaps) => ({
    first: Math.min(...gaps.map(([, , first]) => first)),
    last: Math.max(...gaps.map(([, , , last]) => last)),
  });

  function draw() {
    const gaps = openGaps();
    if (store.changingJob) keep(gaps);
    if (!gaps.length || store.changingJob) return refill(place);
    const ids = new Set(gaps.map(([id]) => id));
    const { first, last } = spanOf(gaps);
    const who = ids.size === 1 ? store.object(gaps[0][0]).name : counted(ids.size, "object");
    const isNew = !place.firstChild;
    const where = gaps.length === 1 ? `frame ${gaps[0][1]}` : counted(gaps.length, "frame");
    refill(
      place,
      h(
        "div",
        { class: "notice accent", "data-test": "track-again-notice" },
        h(
          "p",
          {},
          `You corrected ${who} on ${where}. Track again between the barriers, so that the frames around follow? The corrected ones stay as they are.`,
        ),
        h(
          "div",
          { class: "row" },
          h(
            "button",
            { type: "button", class: "primary grow", "data-key": "track-again", "data-test": "track-again", onclick: trackAgain },
            `Track ${first} to ${last} again`,
          ),
          iconButton("close", "Not now", () => (corrected.clear(), draw()), { "data-key": "track-again-not" }),
        ),
      ),
    );
    if (isNew) place.scrollIntoView({ block: "nearest" });
  }

  store.on("done", note);
  store.on("timeline", draw); // says what was tracked, and may come after the correction
  return { forget: (ids) => ids.forEach((id) => corrected.delete(id)), draw };
}
