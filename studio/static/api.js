// The page's own server, one function for each address. Every path is relative to the page's root.

const ROOT = new URL("../../", import.meta.url);

/** What a request failed with: `message` is one sentence for people, `status` the HTTP status, 0 for no answer. */
export class StudioError extends Error {
  constructor(message, status) {
    super(message);
    this.name = "StudioError";
    this.status = status;
  }
}

const address = (path) => new URL(path, ROOT).href;
const of = (token) => `studio/${encodeURIComponent(token)}`;

async function answered(response) {
  if (response.ok) return response;
  let sentence = "";
  try {
    const body = await response.json();
    sentence = body.error || (typeof body.detail === "string" ? body.detail : "");
  } catch {
    // not JSON: something between the page and its server answered
  }
  throw new StudioError(sentence || `The server answered with an error (${response.status}).`, response.status);
}

async function request(method, path, body, signal) {
  const json = body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  let response;
  try {
    response = await fetch(address(path), { method, signal, ...json });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new StudioError("The server cannot be reached. What was done is kept; it will be tried again.", 0);
  }
  return answered(response);
}

const json = async (...args) => (await request(...args)).json();

export const api = {
  samples: () => json("GET", "studio/samples"),
  /** {upload, name, fps?} with a path from `upload`, or {sample} → {token, state}. */
  createSession: (source) => json("POST", "studio/sessions", source),
  state: (token) => json("GET", `${of(token)}/state`),
  removeSession: (token) => request("DELETE", of(token)),
  frameUrl: (token, frame, width) => address(`${of(token)}/frames/${frame}?width=${width}`),
  /** The JPEG of a frame, `width` pixels wide or as wide as the video, as a Blob. */
  frame: async (token, frame, width, signal) =>
    (await request("GET", `${of(token)}/frames/${frame}?width=${width}`, undefined, signal)).blob(),
  /** Frame number as text → its cells, for at most 64 frames. */
  masks: async (token, first, last, signal) =>
    (await json("GET", `${of(token)}/masks?first=${first}&last=${last}`, undefined, signal)).frames,
  timeline: (token) => json("GET", `${of(token)}/timeline`),
  doubts: (token, limit = 200) => json("GET", `${of(token)}/doubts?limit=${limit}`),
  /** → {result, touched, state} */
  run: (token, command, args, signal) => json("POST", `${of(token)}/do/${command}`, args, signal),
  startJob: async (token, kind, args) => (await json("POST", `${of(token)}/jobs`, { kind, ...args })).job,
  cancelJob: (token, id) => request("DELETE", `${of(token)}/jobs/${encodeURIComponent(id)}`),
  eventsUrl: (token) => address(`${of(token)}/events`),
  fileUrl: (token, jobId) => address(`${of(token)}/files/${encodeURIComponent(jobId)}`),

  /** Send a file to the server → the path that `createSession` takes. `onProgress` is given 0 to 1. */
  upload(file, onProgress = () => {}, signal) {
    return new Promise((resolve, reject) => {
      const call = new XMLHttpRequest();
      const form = new FormData();
      form.append("files", file, file.name);
      call.open("POST", address("gradio_api/upload"));
      call.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
      call.onerror = () => reject(new StudioError("The upload was cut off: the server cannot be reached.", 0));
      call.onabort = () => reject(new DOMException("The upload was cancelled.", "AbortError"));
      call.onload = async () => {
        try {
          const [path] = await (await answered(new Response(call.response, { status: call.status }))).json();
          resolve(path);
        } catch (error) {
          reject(error);
        }
      };
      signal?.addEventListener("abort", () => call.abort());
      call.responseType = "blob";
      call.send(form);
    });
  },
};
