// The page: which session is open, and where its parts are. `start` is called once, when Gradio shows the page.

import { api } from "./api.js";
import { h, icon } from "./dom.js";
import { mountHeader } from "./header.js";
import { forgetSession, rememberSession } from "./memory.js";
import { createStore } from "./store.js";
import { themeSwitch } from "./theme.js";
import { mountToasts, toast } from "./toast.js";

// Each is the module that has `mount<Name>(element, store, api)`, and owns the inside of the element.
const PANELS = [
  ["find", "Find"],
  ["objects", "Objects"],
  ["track", "Track"],
  ["review", "Review"],
  ["results", "Download"],
];

let store = null;
let content = null;
let root = null;

/** Show the page. The element is only where Gradio put it: the page fills the window. */
export function start(element) {
  if (root?.isConnected) return; // Gradio may show its component again
  loadStyles();
  root = h("div", { class: "studio", id: "studio-root" });
  content = h("div", { class: "studio-content" });
  root.append(content);
  themeSwitch(root);
  document.body.append(root);
  element?.setAttribute("hidden", "");
  addEventListener("hashchange", route);
  route();
}

function loadStyles() {
  for (const name of ["studio.css", "panels.css", "timeline.css"]) {
    const href = new URL(name, import.meta.url).href;
    if (!document.querySelector(`link[href="${href}"]`)) document.head.append(h("link", { rel: "stylesheet", href }));
  }
}

/** Show the session that the address names, or the way to one. */
async function route() {
  store?.close();
  store = null;
  delete root.dataset.ready;
  mountToasts(root);
  const token = location.hash.slice(1);
  if (!token) {
    await showWelcome();
    return;
  }
  content.replaceChildren(h("p", { class: "page-note", role: "status" }, "Opening the session …"));
  try {
    const state = await api.state(token);
    if (token === location.hash.slice(1)) await showSession(token, state);
  } catch (error) {
    if (error.status === 404) leave(token, "This session is not there any more.");
    else showProblem(error.message);
  }
}

function openSession(token) {
  location.hash = token; // of letters that an address takes as they are
}

function leave(token, sentence) {
  forgetSession(token);
  location.hash = "";
  toast(sentence, { kind: "error", seconds: Infinity });
}

function showProblem(sentence) {
  const again = h("button", { type: "button", class: "primary", onclick: route }, "Try again");
  const back = h("a", { class: "button", href: "#" }, "All sessions");
  content.replaceChildren(h("div", { class: "page-note" }, h("p", { role: "alert" }, sentence), h("div", { class: "row" }, again, back)));
}

async function showWelcome() {
  document.title = "Grounded SAM 2 Studio";
  const place = h("main", { class: "welcome", id: "studio-welcome" });
  content.replaceChildren(h("header", { class: "studio-header" }, h("span", { class: "brand" }, icon("sparkle"), "Studio"), h("span", { class: "spacer" }), themeSwitch(root)), place);
  const mountWelcome = await loaded("welcome", "Welcome");
  mountWelcome?.(place, openSession, api);
}

async function showSession(token, state) {
  rememberSession(token, state.name);
  document.title = `${state.name} – Studio`;
  store = createStore(api, token, state);
  store.on("gone", () => leave(token, "This session is not there any more: it was removed, or it was idle for too long."));
  const part = (name, label, tag = "section") =>
    h(tag, { class: "panel", id: `panel-${name}`, "aria-label": label, "data-test": name });
  const panels = PANELS.map(([name, label]) => part(name, label));
  const header = h("header", { class: "studio-header" });
  const stage = h("main", { class: "studio-stage", id: "studio-stage", "aria-label": "Stage" });
  // not a footer: Gradio's are hidden
  const timeline = h("section", { class: "studio-timeline", id: "studio-timeline", "aria-label": "Timeline" });
  const side = h("aside", { class: "studio-side", "aria-label": "Steps" }, panels);
  content.replaceChildren(header, h("div", { class: "studio-body" }, stage, side), timeline);
  mountHeader(header, store, root);
  mountToasts(stage);
  const places = [["stage", "Stage", stage], ["timeline", "Timeline", timeline], ...PANELS.map(([name], index) => [name, title(name), panels[index]])];
  const own = store;
  await Promise.all(
    places.map(async ([name, exported, place]) => {
      const mount = await loaded(name, exported);
      if (store === own) mount?.(place, own, api);
    }),
  );
  root.dataset.ready = "yes";
}

const title = (name) => name[0].toUpperCase() + name.slice(1);

/** `mount<Name>` of a module; a part that cannot be loaded does not take the others with it. */
async function loaded(module, name) {
  try {
    return (await import(`./${module}.js`))[`mount${name}`];
  } catch (error) {
    console.error(`The part "${module}" of the page could not be loaded:`, error);
    return null;
  }
}

/** The store of the session that is open, or null. For tests. */
export const openStore = () => store;
