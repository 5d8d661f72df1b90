// Find: words that become phrases, what they found on the frame, and what is accepted of it.

import { nextColor } from "./colors.js";
import { h } from "./dom.js";
import { foundList } from "./found.js";
import { counted, disclosure, drawnWhenChanged, panel, refill, saidWithUndo, slider } from "./parts.js";
import { mountPieces } from "./pieces.js";
import { writeTerms } from "./prompt_text.js";
import { mountWords } from "./words.js";

export function mountFind(element, store, api) {
  const { body, note } = panel(element, "Find", "find");
  const wordsPlace = h("div", { class: "words-place" });
  const actions = h("div", { class: "stack" });
  const found = h("div", { class: "found", "data-test": "found", "aria-live": "polite" });
  body.append(wordsPlace, actions, found);
  const state = { detector: null, isBusy: false, nothing: null }; // nothing: the frame on which nothing was found
  const words = mountWords(wordsPlace, { find: () => find(), change: () => ((state.nothing = null), drawFound()) });

  // ---- finding ----

  async function busy(work) {
    state.isBusy = true;
    drawFound();
    try {
      return await work();
    } catch {
      return null; // the store has said what was wrong
    } finally {
      state.isBusy = false;
      drawFound();
    }
  }

  /** Bring the session's search up to date with the phrases; false where there are none. */
  async function saveSearch() {
    words.take();
    if (!words.terms.length) {
      words.focus();
      return false;
    }
    const search = { text_prompt: writeTerms(words.terms), box_threshold: words.threshold };
    const { text_prompt, box_threshold } = store.state.search;
    if (search.text_prompt !== text_prompt || search.box_threshold !== box_threshold) await store.do("set_search", search);
    return true;
  }

  const find = () =>
    !state.isBusy &&
    busy(async () => {
      state.nothing = null;
      if (!(await saveSearch())) return;
      store.pause();
      const result = await store.do("find", { frame: store.frame, ...(state.detector && { detector: state.detector }) });
      let position = 0;
      const items = result.items.map((item) => {
        const known = store.object(item.known_as);
        return { ...item, accepted: !known, color: known?.color ?? nextColor(store, position++) };
      });
      if (!items.length) state.nothing = result.frame;
      store.setCandidates(items.length ? { ...result, kind: "find", items } : null);
    });

  const accept = () =>
    busy(async () => {
      const { find: key, items } = store.candidates;
      const keys = items.filter((item) => item.accepted).map((item) => item.key);
      const { ids } = await store.do("accept", { find: key, keys });
      store.setCandidates(null);
      if (ids.length) store.select(ids[0]);
      saidWithUndo(store, `${counted(ids.length, "object")} added. Next: Track.`);
    });

  function drawActions() {
    refill(
      actions,
      h(
        "button",
        {
          type: "button",
          class: state.isBusy || store.candidates ? "" : "primary",
          disabled: state.isBusy,
          "data-key": "find-run",
          "data-test": "find-run",
          onclick: find,
        },
        state.isBusy
          ? "Looking…"
          : store.candidates?.kind === "find"
            ? `Find again on frame ${store.frame}`
            : `Find on frame ${store.frame}`,
      ),
    );
  }

  // ---- what was found ----

  function drawNothing() {
    const lower = Math.max(0.05, Math.round((words.threshold - 0.1) * 20) / 20);
    const retry = () => {
      words.threshold = lower;
      for (const term of words.terms) term.threshold = null;
      words.draw();
      drawOptions();
      find();
    };
    return h(
      "div",
      { class: "notice", "data-test": "nothing" },
      h(
        "p",
        {},
        `Nothing like that on frame ${state.nothing}. Try other words, another frame, or let the detector be less sure.`,
      ),
      store.state.note && h("p", { class: "hint" }, store.state.note),
      lower < words.threshold &&
        h("button", { type: "button", "data-test": "find-lower", onclick: retry }, `Try from ${lower.toFixed(2)} on`),
    );
  }

  const drawFound = () => {
    const isFound = store.candidates?.kind === "find";
    refill(found, isFound ? foundList(store, api, accept, state.isBusy) : state.nothing !== null && drawNothing());
    note.textContent = isFound ? `${store.candidates.items.length} found` : "";
    drawActions();
  };

  // ---- options ----

  const every = h("input", { type: "number", min: 1, max: 10000, value: 25, id: "find-every", "data-test": "find-every" });
  const follow = async () => {
    if (!(await saveSearch())) return;
    const range = store.range ? { first: store.range.first, last: store.range.last } : {};
    store.startJob("follow_and_find", {
      every: Math.max(1, Math.round(Number(every.value)) || 25),
      ...range,
      ...(state.detector && { detector: state.detector }),
    });
  };

  const howSure = h("div", { class: "stack" });
  function drawOptions() {
    const { detectors } = store.state;
    refill(
      howSure,
      slider("Confidence at least", words.threshold, (value) => ((words.threshold = value), words.draw()), {
        "data-key": "threshold",
        "data-test": "threshold",
      }),
      detectors.length > 1 &&
        h(
          "label",
          { class: "field-row" },
          h("span", {}, "Detector"),
          h(
            "select",
            { "data-test": "detector", "data-key": "detector", onchange: (event) => (state.detector = event.target.value) },
            detectors.map((name) => h("option", { value: name, selected: name === state.detector }, name)),
          ),
        ),
    );
  }

  const pieces = h("div", {});
  body.append(
    disclosure("How sure, and which detector", "find-options", howSure),
    disclosure(
      "Find new ones while tracking",
      "find-follow",
      h(
        "p",
        { class: "hint" },
        "Tracks through the video and looks for the phrases again now and then. Who is known keeps its number; who is new becomes an object.",
      ),
      h(
        "div",
        { class: "row" },
        h("label", { class: "field-row grow", for: "find-every" }, h("span", {}, "Look every"), every, h("span", {}, "frames")),
        h("button", { type: "button", "data-test": "follow-and-find", onclick: () => follow().catch(() => {}) }, "Start"),
      ),
    ),
    pieces,
  );
  mountPieces(pieces, store, api);

  const onSearch = drawnWhenChanged(
    () => [store.state.search, store.state.detectors],
    ([search]) => {
      words.show(search);
      drawOptions();
    },
  );
  store.on("state", onSearch);
  for (const name of ["frame", "playing"]) store.on(name, () => store.playing || drawFound());
  store.on("candidates", drawFound);
  onSearch();
  drawFound();
}
