// Light and dark: as the system has it until the switch is used, which this browser keeps.

import { icon, iconButton } from "./dom.js";
import { kept, keep } from "./memory.js";

const system = matchMedia("(prefers-color-scheme: dark)");

/** A button that changes the theme of `root`. */
export function themeSwitch(root) {
  const button = iconButton("moon", "Dark or light", () => {
    keep("theme", root.dataset.theme === "dark" ? "light" : "dark");
    apply();
  });
  const apply = () => {
    root.dataset.theme = kept("theme") ?? (system.matches ? "dark" : "light");
    button.replaceChildren(icon(root.dataset.theme === "dark" ? "sun" : "moon"));
  };
  system.addEventListener("change", apply);
  apply();
  return button;
}
