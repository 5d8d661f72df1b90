// What the server tells by itself: changes by other tabs, progress of jobs. Comes back by itself after a cut.

const FIRST_WAIT = 500; // milliseconds
const LONGEST_WAIT = 15000;
const HIDDEN = 20000; // after which a tab that nobody sees lets go of its connection: a browser has six for all tabs

/**
 * Listen to a session. @param on {state, job, progress, connected(isConnected), gone()}: functions.
 * @returns a function that ends it.
 */
export function listen(api, token, on) {
  let source = null;
  let timer = 0;
  let wait = FIRST_WAIT;
  let isAsking = false;
  let hasEnded = false;

  const connect = () => {
    source = new EventSource(api.eventsUrl(token));
    source.onopen = () => {
      wait = FIRST_WAIT;
      on.connected(true);
    };
    source.onmessage = (message) => {
      const event = JSON.parse(message.data);
      on[event.event]?.(event);
    };
    source.onerror = () => {
      source.close();
      if (hasEnded) return;
      on.connected(false);
      timer = setTimeout(retry, wait * (0.75 + Math.random() / 2));
      wait = Math.min(LONGEST_WAIT, wait * 2);
    };
  };
  // An event source does not say why it failed: ask, so that a session that is gone is told from a server that is.
  const retry = async () => {
    if (isAsking) return;
    isAsking = true;
    const status = await api.state(token).then(() => 200, (error) => error.status);
    isAsking = false;
    if (hasEnded) return;
    if (status === 404) on.gone();
    else connect();
  };
  const rest = () => {
    source.close();
    on.connected(false);
  };
  const hurry = () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(rest, HIDDEN);
    else if (source.readyState === EventSource.CLOSED) retry();
  };
  addEventListener("online", hurry);
  document.addEventListener("visibilitychange", hurry);
  connect();
  return () => {
    hasEnded = true;
    clearTimeout(timer);
    removeEventListener("online", hurry);
    document.removeEventListener("visibilitychange", hurry);
    source.close();
  };
}
