"use strict";
{
  const live = document.getElementById("live");
  const state = document.getElementById("refresh");
  const button = document.createElement("button");
  let isOn = true;
  const show = (text) => { state.textContent = text; };
  const label = () => { button.textContent = isOn ? "Stop refreshing" : "Refresh every 2 s"; };
  const refresh = async () => {
    if (!isOn || document.hidden || !document.getSelection().isCollapsed) return;
    try {
      const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
      if (isOn && fresh) live.replaceChildren(...fresh.childNodes);
      show("");
    } catch {
      show("The worker does not answer: what is shown is old.");
    }
  };
  button.addEventListener("click", () => { isOn = !isOn; label(); refresh(); });
  label();
  state.before(button);
  const loop = async () => { await refresh(); setTimeout(loop, 2000); };
  setTimeout(loop, 2000);
}
