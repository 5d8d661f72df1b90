// Find: words that become phrases, what they found on the frame, and what is accepted of it.

import { nextColor } from "./colors.js";
import { h } from "./dom.js";
import { mountPieces } from "./pieces.js";
import { counted, disclosure, drawnWhenChanged, panel, refill, saidWithUndo, slider, thumbnail } from "./parts.js";
import { endsTerm, readSearch, readTerms, writeTerms } from "./prompt_text.js";

export function mountFind(element, store, api) {
  const { body, note } = panel(element, "Find", "find");
  const words = h("div", { class: "words-place" });
  const actions = h("div", { class: "stack" });
  const found = h("div", { class: "found", "data-test": "found", "aria-live": "polite" });
  body.append(words, actions, found);
  const state = { terms: [], threshold: 0.35, opened: null, detector: null, isBusy: false, nothing: null };

  // ---- the words ----

  const input = h("input", {
    type: "text", id: "find-words", class: "words-input", autocomplete: "off", autocapitalize: "off", spellcheck: "false", enterkeyhint: "search",
    "aria-label": "What to find", "aria-describedby": "find-hint", "data-test": "find-words",
    oninput: () => endsTerm(input.value) && take(),
    onkeydown: (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter") {
        event.preventDefault();
        find();
      } else if (event.key === "Backspace" && input.value === "" && state.terms.length) {
        event.preventDefault();
        removeTerm(state.terms.length - 1);
      }
    },
  });

  /** Make phrases of what was typed; true where there was something. */
  function take() {
    const typed = readTerms(input.value);
    if (!typed.length) return false;
    input.value = "";
    const names = new Set(typed.map((term) => term.text));
    setTerms([...state.terms.filter((term) => !names.has(term.text)), ...typed]);
    return true;
  }

  function setTerms(terms) {
    state.terms = terms;
    state.nothing = null;
    drawWords();
    drawFound();
  }

  function removeTerm(index) {
    if (state.opened === state.terms[index].text) state.opened = null;
    setTerms(state.terms.filter((_, other) => other !== index));
    input.focus();
  }

  function chip(term, index) {
    const isOpen = state.opened === term.text;
    const value = term.threshold === null ? "" : ` ≥ ${term.threshold.toFixed(2)}`;
    return h("span", { class: `chip${isOpen ? " open" : ""}`, "data-test": "phrase" },
      h("button", {
        type: "button", class: "chip-name", "aria-expanded": String(isOpen), "data-key": `chip-${term.text}`,
        title: "Set how sure the detector must be of this phrase",
        onclick: () => ((state.opened = isOpen ? null : term.text), drawWords()),
      }, term.text, value && h("small", {}, value)),
      h("button", { type: "button", class: "chip-remove", "aria-label": `Remove ${term.text}`, title: `Remove ${term.text}`, onclick: () => removeTerm(index) }, "×"));
  }

  function drawWords() {
    input.placeholder = state.terms.length ? "and…" : "dog. red ball.";
    const hadFocus = document.activeElement === input;
    const opened = state.terms.find((term) => term.text === state.opened);
    refill(words,
      h("div", { class: "words", onclick: (event) => event.target === event.currentTarget && input.focus() }, state.terms.map(chip), input),
      opened && h("div", { class: "chip-threshold" },
        slider(`“${opened.text}” at least`, opened.threshold ?? state.threshold, (value) => ((opened.threshold = value), drawWords()), { "data-key": "own-threshold", "data-test": "own-threshold" }),
        opened.threshold !== null && h("button", { type: "button", class: "link", onclick: () => ((opened.threshold = null), drawWords()) }, "As all others")),
      !state.terms.length && h("p", { class: "hint", id: "find-hint" }, "Say what you are looking for, in English. A comma, a period or Enter ends a phrase."));
    if (hadFocus) input.focus();
    drawActions();
  }

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
    take();
    if (!state.terms.length) {
      input.focus();
      return false;
    }
    const search = { text_prompt: writeTerms(state.terms), box_threshold: state.threshold };
    const { text_prompt, box_threshold } = store.state.search;
    if (search.text_prompt !== text_prompt || search.box_threshold !== box_threshold) await store.do("set_search", search);
    return true;
  }

  const find = () => !state.isBusy && busy(async () => {
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

  const accept = () => busy(async () => {
    const { find: key, items } = store.candidates;
    const keys = items.filter((item) => item.accepted).map((item) => item.key);
    const { ids } = await store.do("accept", { find: key, keys });
    store.setCandidates(null);
    if (ids.length) store.select(ids[0]);
    saidWithUndo(store, `${counted(ids.length, "object")} added. Next: Track.`);
  });

  function drawActions() {
    const isTyped = state.terms.length > 0;
    refill(actions,
      h("button", { type: "button", class: state.isBusy || store.candidates ? "" : "primary", disabled: state.isBusy, "data-key": "find-run", "data-test": "find-run", onclick: find },
        state.isBusy ? "Looking…" : isTyped && store.candidates?.kind === "find" ? `Find again on frame ${store.frame}` : `Find on frame ${store.frame}`));
  }

  // ---- what was found ----

  function acceptAll(isAccepted) {
    store.setCandidates({ ...store.candidates, items: store.candidates.items.map((item) => ({ ...item, accepted: isAccepted })) });
  }

  function itemRow(item) {
    const { state: { width, height } } = store;
    const known = store.object(item.known_as);
    return h("li", {},
      h("label", { class: "found-row", style: { "--object": item.color } },
        h("input", {
          type: "checkbox", checked: item.accepted, "data-key": `item-${item.key}`, "data-test": `item-${item.key}`,
          onchange: (event) => store.setCandidate(item.key, { accepted: event.target.checked }),
        }),
        thumbnail(api.frameUrl(store.token, store.candidates.frame, 640), item.box, [width, height], [44, 44]),
        h("span", { class: "found-words" },
          h("span", { class: "found-label" }, item.label),
          known && h("small", { class: "tag" }, `already ${known.name}`)),
        h("span", { class: "found-confidence", title: `Confidence ${item.confidence.toFixed(2)}` },
          h("span", { class: "bar", style: { "--part": `${Math.round(100 * item.confidence)}%` } }), item.confidence.toFixed(2))));
  }

  function drawItems() {
    const { frame, items } = store.candidates;
    const number = items.filter((item) => item.accepted).length;
    return [
      h("div", { class: "row spread" },
        h("span", {}, `${items.length} found`, frame !== store.frame && [" on ", h("button", { type: "button", class: "link", onclick: () => store.setFrame(frame) }, `frame ${frame}`)]),
        h("button", { type: "button", class: "link", "data-key": "item-all", onclick: () => acceptAll(number < items.length) }, number < items.length ? "All" : "None")),
      h("ul", { class: "plain found-list" }, items.map(itemRow)),
      h("div", { class: "row" },
        h("button", { type: "button", class: "primary grow", disabled: !number || state.isBusy, "data-key": "accept", "data-test": "accept", onclick: accept }, number ? `Accept ${number}` : "Accept"),
        h("button", { type: "button", "data-key": "discard", "data-test": "discard", onclick: () => store.setCandidates(null) }, "Discard")),
    ];
  }

  function drawNothing() {
    const lower = Math.max(0.05, Math.round((state.threshold - 0.1) * 20) / 20);
    const retry = () => {
      state.threshold = lower;
      for (const term of state.terms) term.threshold = null;
      drawWords();
      drawOptions();
      find();
    };
    return h("div", { class: "notice", "data-test": "nothing" },
      h("p", {}, `Nothing like that on frame ${state.nothing}. Try other words, another frame, or let the detector be less sure.`),
      store.state.note && h("p", { class: "hint" }, store.state.note),
      lower < state.threshold && h("button", { type: "button", "data-test": "find-lower", onclick: retry }, `Try from ${lower.toFixed(2)} on`));
  }

  const drawFound = () => {
    const isFound = store.candidates?.kind === "find";
    refill(found, isFound ? drawItems() : state.nothing !== null && drawNothing());
    note.textContent = isFound ? `${store.candidates.items.length} found` : "";
    drawActions();
  };

  // ---- options ----

  const every = h("input", { type: "number", min: 1, max: 10000, value: 25, id: "find-every", "data-test": "find-every" });
  const follow = async () => {
    if (!(await saveSearch())) return;
    const range = store.range ? { first: store.range.first, last: store.range.last } : {};
    store.startJob("follow_and_find", { every: Math.max(1, Math.round(Number(every.value)) || 25), ...range, ...(state.detector && { detector: state.detector }) });
  };

  const howSure = h("div", { class: "stack" });
  function drawOptions() {
    const { detectors } = store.state;
    refill(howSure,
      slider("Confidence at least", state.threshold, (value) => ((state.threshold = value), drawWords()), { "data-key": "threshold", "data-test": "threshold" }),
      detectors.length > 1 && h("label", { class: "field-row" }, h("span", {}, "Detector"),
        h("select", { "data-test": "detector", "data-key": "detector", onchange: (event) => (state.detector = event.target.value) },
          detectors.map((name) => h("option", { value: name, selected: name === state.detector }, name)))));
  }

  const pieces = h("div", {});
  body.append(
    disclosure("How sure, and which detector", "find-options", howSure),
    disclosure("Find new ones while tracking", "find-follow",
      h("p", { class: "hint" }, "Tracks through the video and looks for the phrases again now and then. Who is known keeps its number; who is new becomes an object."),
      h("div", { class: "row" },
        h("label", { class: "field-row grow", for: "find-every" }, h("span", {}, "Look every"), every, h("span", {}, "frames")),
        h("button", { type: "button", "data-test": "follow-and-find", onclick: () => follow().catch(() => {}) }, "Start"))),
    pieces);
  mountPieces(pieces, store, api);

  const onSearch = drawnWhenChanged(() => [store.state.search, store.state.detectors], ([search]) => {
    Object.assign(state, readSearch(search));
    drawWords();
    drawOptions();
  });
  store.on("state", onSearch);
  for (const name of ["frame", "playing"]) store.on(name, () => store.playing || drawFound());
  store.on("candidates", drawFound);
  onSearch();
  drawFound();
}
