// The line at the top: the video's name, undo and redo, what is drawn, theme, help, the way to other sessions.

import { h, icon, iconButton } from "./dom.js";
import { themeSwitch } from "./theme.js";

const SWITCHES = [
  ["fill", "Masks"],
  ["outlines", "Outlines"],
  ["boxes", "Boxes"],
  ["labels", "Labels"],
];

export function mountHeader(element, store, root) {
  const undo = iconButton("undo", "Undo", () => store.goBack("undo").catch(() => {}), { key: "Z", id: "undo" });
  const redo = iconButton("redo", "Redo", () => store.goBack("redo").catch(() => {}), { key: "Y", id: "redo" });
  const connection = h("span", { class: "chip warning", hidden: true, role: "status", id: "connection" }, "Reconnecting …");
  const name = h("h1", { class: "video-name", title: store.state.name }, store.state.name);
  const facts = `${store.state.width} × ${store.state.height}, ${store.state.num_frames} frames`;
  element.append(
    h("a", { class: "brand", href: "#", title: "All sessions", id: "all-sessions", "aria-label": "All sessions" }, icon("home")),
    h("div", { class: "titles" }, name, h("span", { class: "muted" }, facts)),
    h("div", { class: "row", role: "group", "aria-label": "History" }, undo, redo),
    connection,
    h("span", { class: "spacer" }),
    viewSwitches(store),
    h("span", { class: "divider" }),
    iconButton("help", "Keys", () => root.dispatchEvent(new CustomEvent("show-help")), { key: "?", id: "help" }),
    themeSwitch(root),
  );
  const update = () => {
    for (const [button, kind] of [[undo, store.state.undo], [redo, store.state.redo]]) {
      button.disabled = !kind;
      const verb = button === undo ? "Undo" : "Redo";
      button.title = kind ? `${verb} ${kind.replaceAll("_", " ")} (${button === undo ? "Z" : "Y"})` : `Nothing to ${verb.toLowerCase()}`;
    }
  };
  store.on("state", update);
  store.on("connected", (isConnected) => (connection.hidden = isConnected));
  update();
}

function viewSwitches(store) {
  const switches = SWITCHES.map(([key, label]) =>
    h(
      "button",
      { type: "button", class: "toggle", id: `view-${key}`, onclick: () => store.setView({ [key]: !store.view[key] }) },
      label,
    ),
  );
  const opacity = h("input", {
    type: "range", min: 0, max: 100, id: "view-opacity", "aria-label": "Opacity of masks", title: "Opacity of masks",
    oninput: () => store.setView({ opacity: Number(opacity.value) / 100 }),
  });
  const update = () => {
    SWITCHES.forEach(([key], index) => switches[index].setAttribute("aria-pressed", String(Boolean(store.view[key]))));
    opacity.value = Math.round(store.view.opacity * 100);
  };
  store.on("view", update);
  update();
  return h("div", { class: "row view-switches", role: "group", "aria-label": "What is drawn" }, switches, opacity);
}
