// Looks at the status page as a user's browser does. Prints one line of JSON for each check:
// {"what": "...", "holds": true, "found": "..."}.
//
//   node check.mjs PORT CHROMIUM

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [port, executablePath] = process.argv.slice(2);
const base = `http://localhost:${port}`;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

function that(what, holds, found = "") {
  console.log(JSON.stringify({ what, holds: Boolean(holds), found: String(found).slice(0, 2000) }));
}

async function look(browser, colorScheme, width) {
  const name = `${colorScheme}, ${width} pixels`;
  const context = await browser.newContext({ colorScheme, viewport: { width, height: 900 } });
  const page = await context.newPage();
  const requests = [];
  const complaints = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("dialog", (dialog) => complaints.push(`dialog: ${dialog.message()}`));
  await page.goto(`${base}/status`);
  const first = await page.locator("time").first().textContent();
  await page.waitForFunction((was) => document.querySelector("time").textContent !== was, first);
  that(`${name}: refreshes in place`, true);
  const foreign = requests.filter((url) => !url.startsWith(base));
  that(`${name}: no request to elsewhere`, foreign.length === 0, foreign);
  that(`${name}: a reservation with markup stays text`, await page.locator("#live img").count() === 0);
  const shown = await page.locator("body").innerText();
  that(`${name}: it is shown`, shown.includes("<img src=x onerror=alert(1)>"), shown);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
  that(`${name}: the page itself does not scroll sideways`, !wide);
  that(`${name}: nothing on the console`, complaints.length === 0, complaints);
  await page.getByRole("button", { name: "Stop refreshing" }).click();
  const stopped = requests.length;
  await page.waitForTimeout(5000);
  that(`${name}: can be stopped`, requests.length === stopped, requests.length - stopped);
  await context.close();
  await accessible(browser, name, { colorScheme, viewport: { width, height: 900 } });
}

// The page allows no script but its own: axe needs a context in which that is switched off.
async function accessible(browser, name, options) {
  const context = await browser.newContext({ ...options, bypassCSP: true });
  const page = await context.newPage();
  await page.goto(`${base}/status`);
  await page.locator("summary").click();
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const found = violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`);
  that(`${name}: axe finds nothing`, violations.length === 0, found.join("; "));
  await context.close();
}

async function withoutScript(browser) {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const page = await context.newPage();
  await page.goto(`${base}/status`);
  const captions = await page.locator("caption").allTextContents();
  for (const caption of ["Services", "Parts", "Held events", "The last failures"]) {
    that(`without script: ${caption}`, captions.includes(caption), captions);
  }
  await context.close();
}

async function embedded(browser) {
  const other = createServer((_, answer) => {
    answer.setHeader("Content-Type", "text/html");
    answer.end(`<iframe src="${base}/status"></iframe><p>other</p>`);
  });
  await new Promise((ready) => other.listen(0, "127.0.0.1", ready));
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${other.address().port}/`);
  const frame = page.frames().find((one) => one !== page.mainFrame());
  const inside = await frame.evaluate(() => document.body.innerText).catch(String);
  that("cannot be framed", !inside.includes("reservation-worker"), inside);
  const read = await page.evaluate(async (url) => {
    try {
      return await (await fetch(url)).text();
    } catch (error) {
      return `refused: ${error}`;
    }
  }, `${base}/status.json`);
  that("cannot be read from another origin", read.startsWith("refused"), read);
  other.close();
}

// A name that its owner points at this machine, as in DNS rebinding.
async function rebound(executable) {
  const args = ["--no-sandbox", "--host-resolver-rules=MAP rebound.example 127.0.0.1"];
  const browser = await chromium.launch({ executablePath: executable, args });
  const page = await browser.newPage();
  for (const path of ["/status", "/status.json"]) {
    const answer = await page.goto(`http://rebound.example:${port}${path}`);
    that(`a foreign name gets 403: ${path}`, answer.status() === 403, answer.status());
  }
  await browser.close();
}

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
for (const colorScheme of ["light", "dark"]) {
  for (const width of [400, 1600]) await look(browser, colorScheme, width);
}
await withoutScript(browser);
await embedded(browser);
await browser.close();
await rebound(executablePath);
