// Keeps a page up to date, shows times as they are here, and lets commands be copied. Without it, a page is the same, but
// stands still. All HTML comes from the server, which escapes it.
"use strict";

const AGAIN_MS = 10_000;
const every = Number(document.body.dataset.every);
const status = document.getElementById("status");
const pause = document.getElementById("pause");
/** The HTML of each element as the server sent it. */
const sources = new WeakMap();
let stream, timer, isPaused = false, isFetching = false, isWanted = false, fetchedAt = 0;

function prepare(root) {
  const today = new Date().toDateString();
  for (const time of root.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    time.title = time.dateTime;
    time.textContent = at.toDateString() === today ? at.toLocaleTimeString()
      : at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  }
  if (!navigator.clipboard) return;
  for (const command of root.querySelectorAll(".command")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy " + command.textContent);
    command.after(button);
  }
}

/** Replaces the children that have changed; the others stay, with the focus and the selection in them. */
function merge(region, fresh) {
  const known = new Map();
  for (const child of region.children) if (child.id) known.set(child.id, child);
  const isList = region.localName === "tbody" && known.size > 0;
  const next = [...fresh.children].map((child) => {
    const old = known.get(child.id), source = child.outerHTML;
    if (old && sources.get(old) === source) return old;
    sources.set(child, source);
    prepare(child);
    if (isList && !old) child.classList.add("new");
    return child;
  });
  const kept = new Set(next);
  const gone = [...region.children].filter((child) => !kept.has(child));
  const chosen = getSelection();
  const isUsed = (child) => child.contains(document.activeElement)
    || (!chosen.isCollapsed && chosen.containsNode(child, true));
  // Nothing is taken from under a reader's hands: the next time.
  if (gone.some(isUsed)) return;
  for (const child of gone) child.remove();
  let place = region.firstElementChild;
  for (const child of next) {
    if (child === place) place = place.nextElementSibling;
    else region.insertBefore(child, place);
  }
}

async function refresh() {
  isFetching = true;
  isWanted = false;
  fetchedAt = Date.now();
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!answer.ok) return say("Not up to date: " + answer.status, false);
    for (const region of document.querySelectorAll("[data-live]")) {
      const fresh = region.id && page.getElementById(region.id);
      if (fresh) merge(region, fresh);
    }
    // The first event makes another page of an empty one.
    if (page.getElementById("latest") && !document.getElementById("latest")) location.reload();
    say("Live", true);
  } catch {
    say("Not reachable, trying again", false);
  } finally {
    isFetching = false;
    if (isWanted) want();
  }
}

function want() {
  isWanted = true;
  if (isFetching || isPaused || document.hidden) return;
  clearTimeout(timer);
  timer = setTimeout(refresh, Math.max(0, fetchedAt + every - Date.now()));
}

function say(text, isLive) {
  if (isPaused) [text, isLive] = ["Paused", false];
  if (status.textContent !== text) status.textContent = text;
  document.body.classList.toggle("is-live", isLive);
}

/** A hidden page takes no connection of the browser, and no place of the server. */
function connect() {
  stream?.close();
  if (isPaused || document.hidden) return;
  stream = new EventSource("/page/changes");
  stream.onmessage = want;
  stream.onopen = want;
  stream.onerror = () => {
    say("Not connected, trying again", false);
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, AGAIN_MS);
    want();
  };
}

for (const region of document.querySelectorAll("[data-live]")) {
  for (const child of region.children) sources.set(child, child.outerHTML);
}
prepare(document);
document.addEventListener("click", async (event) => {
  if (!event.target.matches(".copy")) return;
  await navigator.clipboard.writeText(event.target.previousElementSibling.textContent);
  event.target.textContent = "Copied";
});
if (every) {
  pause.hidden = false;
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? "Go on" : "Pause";
    say("Live", true);
    connect();
  });
  document.addEventListener("visibilitychange", connect);
  connect();
}
