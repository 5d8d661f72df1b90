// The first page: give a video, take the sample, or go on with what one has begun.

import { h, icon, iconButton } from "./dom.js";
import { forgetSession, rememberSession, sessions } from "./memory.js";
import { progressBar, refill } from "./parts.js";
import { toast } from "./toast.js";
import { zipped } from "./zip.js";

const IMAGES = /\.(jpe?g|png|bmp|webp|tiff?)$/i;
const KINDS = "video/*,image/*,.zip,.mp4,.mov,.mkv,.avi,.webm,.m4v,.mpg,.mpeg,.gif";

/** "5 minutes ago", or a date. */
export function agoText(milliseconds, now = Date.now()) {
  const minutes = Math.round((now - milliseconds) / 60000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  if (minutes < 24 * 60) return `${Math.round(minutes / 60)} h ago`;
  return new Date(milliseconds).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}

/** What is wrong with the files that were given, in one sentence; "" for nothing. */
export function problemOf(files) {
  if (!files.length) return "No file came along. Drop a video, a zip of images, or several images.";
  if (files.some((file) => file.size === 0)) return `${files.find((file) => file.size === 0).name} is empty.`;
  if (files.length > 1 && !files.every((file) => IMAGES.test(file.name)))
    return "One video or zip at a time, please; only images may come as several files.";
  return "";
}

export function mountWelcome(element, openSession, api) {
  const input = h("input", {
    type: "file",
    accept: KINDS,
    multiple: true,
    id: "welcome-file",
    class: "visually-hidden",
    tabindex: -1,
    "data-test": "file",
    onchange: () => take([...input.files]),
  });
  const status = h("div", { class: "welcome-status", "aria-live": "polite" });
  const problem = h("p", { class: "welcome-problem", role: "alert", hidden: true, "data-test": "problem" });
  const samples = h("div", { class: "welcome-samples" });
  const known = h("section", { class: "welcome-known", "aria-label": "Sessions of this browser" });
  const fps = h("input", { type: "number", min: 1, max: 240, value: 30, id: "welcome-fps", "data-test": "fps" });
  let upload = null; // AbortController of what is being sent

  const drop = h(
    "div",
    { class: "drop", "data-test": "drop" },
    icon("film"),
    h("p", { class: "drop-words" }, "Drop a video here"),
    h(
      "button",
      { type: "button", class: "primary big", "data-test": "choose-file", onclick: () => input.click() },
      icon("upload"),
      "Choose a video",
    ),
    h("p", { class: "hint" }, "MP4, MOV, WebM and others. A zip of images, or several images, are a video too."),
    input,
  );
  element.replaceChildren(
    h(
      "div",
      { class: "welcome-column" },
      h("h1", {}, "Find it. Follow it. Take it with you."),
      h(
        "p",
        { class: "welcome-line" },
        "Name what you are looking for in a video. Every object is outlined, followed through all frames, and yours to correct and download.",
      ),
      drop,
      status,
      problem,
      h(
        "details",
        { class: "disclosure welcome-options" },
        h("summary", {}, "For images"),
        h("label", { class: "field-row", for: "welcome-fps" }, h("span", {}, "Frames per second"), fps),
      ),
      samples,
      known,
      h("p", { class: "hint welcome-foot" }, "Videos go to the machine that serves this page, and nowhere else."),
    ),
  );

  // ---- a video ----

  function complain(sentence) {
    if (sentence && !element.isConnected) return toast(sentence, { kind: "error" });
    problem.textContent = sentence;
    problem.hidden = !sentence;
  }

  function setBusy(isBusy) {
    drop.classList.toggle("busy", isBusy);
    for (const button of element.querySelectorAll("[data-test=choose-file], [data-test^=sample-]")) button.disabled = isBusy;
  }

  async function open(words, work) {
    complain("");
    setBusy(true);
    try {
      refill(status, h("p", { class: "hint" }, words));
      const { token, state } = await work();
      if (element.isConnected) return openSession(token);
      rememberSession(token, state.name); // somebody went on with something else meanwhile, and is left there
      toast(`${state.name} is ready, among all sessions.`, { action: { label: "Open", run: () => openSession(token) }, seconds: 20 });
    } catch (error) {
      if (error.name !== "AbortError") complain(error.message);
    } finally {
      upload = null;
      setBusy(false);
      refill(status);
      input.value = "";
    }
  }

  function take(files) {
    if (upload) return complain("One after another, please: a file is on its way already.");
    const sentence = problemOf(files);
    if (sentence) return complain(sentence);
    upload = new AbortController();
    const name = files.length === 1 ? files[0].name : `${files.length} images`;
    return open(`Sending ${name}…`, async () => {
      const isOne = files.length === 1;
      const file = isOne ? files[0] : new File([await zipped(files)], `${name}.zip`);
      const path = await api.upload(file, (part) => showSent(name, part), upload.signal);
      refill(status, h("p", { class: "hint" }, `Reading ${name}…`), progressBar("Reading", null));
      return api.createSession({ upload: path, name, fps: Number(fps.value) || 30 });
    });
  }

  function showSent(name, part) {
    if (!upload) return;
    refill(
      status,
      h(
        "div",
        { class: "row spread" },
        h("span", {}, `Sending ${name}`),
        h("span", { class: "muted", "data-test": "sent" }, `${Math.round(100 * part)} %`),
        iconButton("close", "Cancel sending", () => upload?.abort(), { "data-key": "cancel-upload" }),
      ),
      progressBar("Sent", part),
    );
  }

  // ---- dropping; anywhere on the page ----

  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let depth = 0;
  const listeners = {
    dragenter: (event) => hasFiles(event) && (event.preventDefault(), (depth += 1), drop.classList.add("over")),
    dragover: (event) => hasFiles(event) && event.preventDefault(),
    dragleave: (event) => hasFiles(event) && (depth -= 1) <= 0 && drop.classList.remove("over"),
    drop: (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      depth = 0;
      drop.classList.remove("over");
      take([...event.dataTransfer.files]);
    },
  };
  for (const [name, listener] of Object.entries(listeners)) element.addEventListener(name, listener);

  // ---- the sample, and sessions of before ----

  api.samples().then(
    (list) => {
      refill(
        samples,
        list.length > 0 && [
          h("span", { class: "muted" }, "No video at hand?"),
          list.map(({ name, label }) =>
            h(
              "button",
              {
                type: "button",
                class: "sample",
                "data-test": `sample-${name}`,
                onclick: () => open("Opening the sample…", () => api.createSession({ sample: name })),
              },
              icon("play"),
              label,
            ),
          ),
        ],
      );
    },
    (error) => complain(error.message),
  );

  function drawKnown() {
    const list = sessions();
    refill(
      known,
      list.length > 0 && [
        h("h2", {}, "Go on with"),
        h(
          "ul",
          { class: "plain" },
          list.map(({ token, name, opened }) =>
            h(
              "li",
              { class: "known" },
              h(
                "a",
                { class: "known-open", href: `#${encodeURIComponent(token)}`, "data-test": "known" },
                h("span", { class: "known-name" }, name),
                h("small", {}, agoText(opened)),
              ),
              iconButton(
                "trash",
                `Remove ${name} and its files`,
                (event) => askRemoval(event.currentTarget.closest("li"), token, name),
                { "data-test": "known-remove" },
              ),
            ),
          ),
        ),
      ],
    );
  }

  function askRemoval(row, token, name) {
    const keep = h("button", { type: "button", onclick: drawKnown }, "Keep");
    row.replaceChildren(
      h("span", { class: "known-name grow" }, `Remove ${name} and all its files?`),
      h("button", { type: "button", class: "danger", "data-test": "known-remove-sure", onclick: () => remove(token) }, "Remove"),
      keep,
    );
    keep.focus();
  }

  async function remove(token) {
    try {
      await api.removeSession(token);
    } catch (error) {
      if (error.status !== 404 && error.status !== 410) return complain(error.message);
    }
    forgetSession(token);
    drawKnown();
  }

  drawKnown();
}
