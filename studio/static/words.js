// The field of words: what is typed becomes phrases, each with a threshold of its own where it needs one.

import { h } from "./dom.js";
import { refill, slider } from "./parts.js";
import { endsTerm, readSearch, readTerms } from "./prompt_text.js";

/**
 * The field in an element. @param on {find(): Enter was pressed, change(): there are other phrases}.
 * @returns {terms, threshold, take(), show(search), draw(), focus()}; see `readSearch`.
 */
export function mountWords(place, on) {
  const state = { terms: [], threshold: 0.35, take, show, draw: drawWords, focus: () => input.focus() };
  let openedText = null;

  const input = h("input", {
    type: "text",
    id: "find-words",
    class: "words-input",
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: "false",
    enterkeyhint: "search",
    "aria-label": "What to find",
    "aria-describedby": "find-hint",
    "data-test": "find-words",
    oninput: () => endsTerm(input.value) && take(),
    onkeydown: (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter") {
        event.preventDefault();
        on.find();
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
    drawWords();
    on.change();
  }

  function removeTerm(index) {
    if (openedText === state.terms[index].text) openedText = null;
    setTerms(state.terms.filter((_, other) => other !== index));
    input.focus();
  }

  function chip(term, index) {
    const isOpen = openedText === term.text;
    const value = term.threshold === null ? "" : ` ≥ ${term.threshold.toFixed(2)}`;
    return h(
      "span",
      { class: `chip${isOpen ? " open" : ""}`, "data-test": "phrase" },
      h(
        "button",
        {
          type: "button",
          class: "chip-name",
          "aria-expanded": String(isOpen),
          "data-key": `chip-${term.text}`,
          title: "Set how sure the detector must be of this phrase",
          onclick: () => ((openedText = isOpen ? null : term.text), drawWords()),
        },
        term.text,
        value && h("small", {}, value),
      ),
      h(
        "button",
        {
          type: "button",
          class: "chip-remove",
          "aria-label": `Remove ${term.text}`,
          title: `Remove ${term.text}`,
          onclick: () => removeTerm(index),
        },
        "×",
      ),
    );
  }

  function drawWords() {
    input.placeholder = state.terms.length ? "and…" : "dog. red ball.";
    const hadFocus = document.activeElement === input;
    const opened = state.terms.find((term) => term.text === openedText);
    refill(
      place,
      h(
        "div",
        { class: "words", onclick: (event) => event.target === event.currentTarget && input.focus() },
        state.terms.map(chip),
        input,
      ),
      opened &&
        h(
          "div",
          { class: "chip-threshold" },
          slider(
            `“${opened.text}” at least`,
            opened.threshold ?? state.threshold,
            (value) => ((opened.threshold = value), drawWords()),
            { "data-key": "own-threshold", "data-test": "own-threshold" },
          ),
          opened.threshold !== null &&
            h(
              "button",
              { type: "button", class: "link", onclick: () => ((opened.threshold = null), drawWords()) },
              "As all others",
            ),
        ),
      !state.terms.length &&
        h(
          "p",
          { class: "hint", id: "find-hint" },
          "Say what you are looking for, in English. A comma, a period or Enter ends a phrase.",
        ),
    );
    if (hadFocus) input.focus();
  }

  /** Show what a session looks for. */
  function show(search) {
    Object.assign(state, readSearch(search));
    drawWords();
  }

  return state;
}
