// What this browser keeps between visits: view, theme, where one was in each session. It works without, too.

const PREFIX = "grounded-sam2-studio:";

/** What was kept under a name, or null. */
export function kept(name) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name));
  } catch {
    return null;
  }
}

export function keep(name, value) {
  try {
    if (value === null) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // a browser that keeps nothing: the page works all the same
  }
}

/** The sessions that this browser has opened, newest first: [{token, name, opened (milliseconds)}]. */
export const sessions = () => kept("sessions") ?? [];

export function rememberSession(token, name) {
  const others = sessions().filter((session) => session.token !== token);
  keep("sessions", [{ token, name, opened: Date.now() }, ...others].slice(0, 50));
}

export function forgetSession(token) {
  keep("sessions", sessions().filter((session) => session.token !== token));
  keep(`at:${token}`, null);
}
