"use strict";
(() => {
  const frames = [...document.querySelectorAll("iframe")];
  const name = (task) => `${task.dataset.step} ${task.querySelector("summary b").textContent}`;

  function openIn(page, task) {
    const same = [...page.querySelectorAll("details.task")].find((one) => name(one) === name(task));
    if (!same || same.open === task.open) return;
    same.open = task.open;
    if (same.open) same.scrollIntoView({ behavior: "instant" });
  }

  function follow(frame) {
    const other = frames.find((one) => one !== frame);
    frame.contentDocument.addEventListener(
      "toggle",
      (event) => event.target.matches("details.task") && openIn(other.contentDocument, event.target),
      true, // a toggle does not bubble
    );
  }

  for (const frame of frames) {
    if (frame.contentDocument?.readyState === "complete" && frame.contentDocument.querySelector("main")) follow(frame);
    else frame.addEventListener("load", () => follow(frame));
  }
})();
