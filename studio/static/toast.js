// Sentences that appear for a moment at the lower edge of the stage and are read aloud.

import { h, iconButton } from "./dom.js";

const SECONDS = { info: 4, error: 9 };
let place = null;

/** Let toasts appear in an element from now on; those that are shown go with them. */
export function mountToasts(element) {
  place ??= h("div", { class: "toasts", role: "status", "aria-live": "polite" });
  element.append(place);
}

/**
 * Show one sentence. @param kind "info" or "error". @param action {label, run}, a button in it.
 * The same sentence twice is shown once. @returns a function that takes it away.
 */
export function toast(text, { kind = "info", action = null, seconds = SECONDS[kind] } = {}) {
  if (!place) return () => {};
  for (const shown of place.children) if (shown.dataset.text === text) shown.remove();
  const end = () => element.remove();
  const element = h(
    "div",
    { class: `toast ${kind}`, dataset: { text }, "data-test": "toast" },
    h("span", {}, text),
    action && h("button", { type: "button", onclick: () => (end(), action.run()) }, action.label),
    iconButton("close", "Close", end),
  );
  place.append(element);
  while (place.children.length > 3) place.firstElementChild.remove();
  if (Number.isFinite(seconds)) setTimeout(end, seconds * 1000);
  return end;
}
