
// A served page asks for a newer one and takes over what differs; the reader's place, sorting and open trials stay.
const EVERY = 3000, PARTS = ["head", "progress", "record", "time", "filters"];
let tag = "";

async function take(fresh) {
  const top = document.elementFromPoint(innerWidth / 2, 60), spot = top && top.closest("[id]"), id = spot && spot.id;
  const before = spot ? spot.getBoundingClientRect().top : 0, row = document.activeElement.closest("tr[id]");
  for (const name of PARTS) {
    const now = document.getElementById(name), next = fresh.getElementById(name);
    if (now && next && !now.isEqualNode(next)) now.replaceWith(document.adoptNode(next));
  }
  listen();
  const data = document.getElementById("data"), newer = fresh.getElementById("data").textContent;
  if (data.textContent !== newer) {
    data.textContent = newer;
    await load(newer);
    await draw();
    const focused = row && document.querySelector(`#${row.id} button`);
    if (focused) focused.focus({ preventScroll: true });
  }
  const after = id && document.getElementById(id);
  if (after) scrollBy({ top: after.getBoundingClientRect().top - before, behavior: "instant" });
}

async function renew() {
  try {
    const answer = await fetch("/", { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
    if (answer.status !== 200 && answer.status !== 304) throw new Error(answer.statusText);
    if (answer.status === 200) {
      tag = answer.headers.get("ETag");
      await take(new DOMParser().parseFromString(await answer.text(), "text/html"));
    }
    document.body.removeAttribute("data-lost");
  } catch {
    document.body.setAttribute("data-lost", "");
  }
  setTimeout(renew, EVERY);
}
setTimeout(renew, EVERY);
