"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const card = document.getElementById("numbers");
  const kinds = Object.fromEntries(
    [...document.querySelectorAll(".legend.kind i")].map((mark) => [mark.className, mark.nextElementSibling.textContent]),
  );
  const spans = new Map(); // the tokens of a sibling, in order, by its key
  let at = null;

  function of(cell) {
    const table = cell.closest("table");
    const key = cell.dataset.of;
    if (!spans.has(key)) {
      const cells = [...table.querySelectorAll("td[data-of]")].filter((one) => one.dataset.of === key);
      spans.set(key, cells.flatMap((one) => [...one.querySelectorAll(".written span")]));
    }
    return spans.get(key);
  }

  function numbersOf(token) {
    const cell = token.closest("td");
    const own = data[cell.dataset.of];
    const index = of(cell).indexOf(token);
    const pick = (name) => (Array.isArray(own[name]) ? own[name][index] : own[name]);
    const shown = (value, digits = 3) => (value === null ? "not finite" : String(+value.toPrecision(digits + 1)));
    const rows = [["token", `${pick("place") + 1}, id ${pick("id")}`]];
    const kind = [...token.classList].find((name) => kinds[name]);
    if (kind) rows.push(["kind", kinds[kind]]);
    if (own.weight !== undefined) {
      rows.push(["weight W", shown(pick("weight"))], ["A × W", shown(own.advantage * pick("weight"))]);
    }
    const names = { divergence: "divergence, nats", entropy: "teacher entropy, nats", gap: "log q − log p", saliency: "saliency" };
    for (const [name, words] of Object.entries(names)) {
      if (own[name] !== undefined) rows.push([words, shown(pick(name))]);
    }
    if (own.masked) rows.push(["credit", own.masked.includes(index) ? "masked literal" : "creditable"]);
    return rows;
  }

  function show(token) {
    if (at === token) return;
    hide();
    at = token;
    unfold(at.closest("tr"), true);
    at.classList.add("at");
    const title = document.createElement("b");
    title.textContent = (token.classList.contains("s") ? "␣" : "") + token.textContent;
    const table = document.createElement("table");
    for (const [name, value] of numbersOf(token)) {
      const row = table.insertRow();
      row.insertCell().textContent = name;
      row.insertCell().textContent = value;
    }
    card.replaceChildren(title, table);
    card.hidden = false;
    place();
  }

  function place() {
    if (!at) return;
    const box = at.getClientRects()[0] ?? at.getBoundingClientRect(); // a token with a line end has several
    const left = Math.min(Math.max(8, box.left), innerWidth - card.offsetWidth - 8);
    const below = box.bottom + 8;
    const top = below + card.offsetHeight < innerHeight ? below : Math.max(8, box.top - card.offsetHeight - 8);
    card.style.left = `${left}px`;
    card.style.top = `${top}px`;
  }

  function hide() {
    if (at) at.classList.remove("at");
    at = null;
    card.hidden = true;
  }

  function unfold(row, open) {
    const button = row.querySelector(".fold");
    if (!button) return;
    row.classList.toggle("folded", !open);
    button.setAttribute("aria-expanded", String(open));
  }

  document.addEventListener("click", (event) => {
    const mark = event.target.closest?.(".strip button");
    const fold = event.target.closest?.(".fold");
    if (mark) {
      const row = mark.closest("table").tBodies[0].rows[mark.dataset.turn - 1];
      unfold(row, true);
      row.cells[mark.closest("th").cellIndex].scrollIntoView({ block: "center", inline: "nearest", behavior: "instant" });
    } else if (fold) {
      const row = fold.closest("tr");
      unfold(row, row.classList.contains("folded"));
    }
  });

  const tasks = [...document.querySelectorAll("details.task")];
  const texts = new Map(); // the text of a task in lower case, made when it is first sought
  const chosen = (name) => document.getElementById(`of-${name}`)?.value ?? "";
  const sought = document.getElementById("sought");

  function holds(task, words) {
    if (!words.length) return true;
    if (!texts.has(task)) texts.set(task, task.textContent.toLowerCase());
    return words.every((word) => texts.get(task).includes(word));
  }

  function find() {
    const words = sought.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const task of tasks) {
      const fits = ["category", "outcome", "step"].every((name) => !chosen(name) || task.dataset[name] === chosen(name));
      task.hidden = !(fits && holds(task, words));
    }
    const count = tasks.filter((task) => !task.hidden).length;
    document.getElementById("found").textContent = count === tasks.length ? `${count} tasks` : `${count} of ${tasks.length} tasks`;
  }

  function openLinked() {
    const task = tasks.find((one) => `#${one.id}` === location.hash);
    if (!task) return;
    task.open = true;
    task.scrollIntoView({ behavior: "instant" });
  }

  if (sought) {
    document.querySelector(".bar").addEventListener("submit", (event) => event.preventDefault());
    for (const control of document.querySelectorAll(".find input, .find select")) control.addEventListener("input", find);
    sought.addEventListener("keydown", (event) => {
      event.stopPropagation();
      const first = tasks.find((task) => !task.hidden);
      if (event.key === "Enter" && first) first.open = true;
      if (event.key === "Enter" && first) first.scrollIntoView({ behavior: "instant" });
    });
  }
  for (const task of tasks) {
    task.querySelector("summary").addEventListener("click", () => {
      if (!task.open) history.replaceState(null, "", `#${task.id}`);
    });
  }
  addEventListener("hashchange", openLinked);
  openLinked();

  const token = (node) => (node instanceof Element ? node.closest(".written span") : null);
  document.addEventListener("mouseover", (event) => (token(event.target) ? show(token(event.target)) : hide()));
  document.addEventListener("click", (event) => token(event.target) && show(token(event.target)));
  document.addEventListener("scroll", place, true);

  function step(region, event) {
    const here = at && region.contains(at) ? at : null;
    if (!here) return region.querySelector(".written span");
    const cell = here.closest("td");
    const sideways = event.key === "ArrowLeft" || event.key === "ArrowRight";
    const forth = event.key === "ArrowRight" || event.key === "ArrowDown";
    if (sideways && !event.shiftKey) {
      const own = of(cell);
      return own[own.indexOf(here) + (forth ? 1 : -1)];
    }
    const row = sideways ? cell.parentElement : cell.parentElement[forth ? "nextElementSibling" : "previousElementSibling"];
    let column = cell.cellIndex + (sideways ? (forth ? 1 : -1) : 0);
    return row && column > 0 && row.cells[column] ? row.cells[column].querySelector(".written span") : null;
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const colour = { w: "weight", d: "divergence", a: "advantage", k: "kind" }[event.key];
    const region = event.target instanceof Element ? event.target.closest(".siblings") : null;
    if (event.key === "/" && sought && event.target !== sought) {
      event.preventDefault();
      sought.focus();
    } else if (colour) {
      const choice = document.getElementById(`by-${colour}`);
      if (choice) choice.checked = true;
    } else if (event.key === "Escape") {
      hide();
    } else if (region && event.key.startsWith("Arrow")) {
      event.preventDefault();
      const next = step(region, event);
      if (next) {
        next.scrollIntoView({ block: "nearest", inline: "nearest", behavior: "instant" });
        show(next);
      }
    }
  });
})();
