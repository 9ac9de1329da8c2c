// Debian's Chromium, led by JSON lines on stdin, saying as JSON lines on stdout what it sees.
// node client.js CHROMIUM URL
// Every command is answered by one line: {"event":"done", …} or {"event":"failed", …}. Ends when stdin does.
"use strict";

const { readFileSync } = require("node:fs");
const { createInterface } = require("node:readline");
const { chromium } = require("playwright-core");

// A machine with two cores may run other browsers and a build at the same time.
const PATIENCE = 45_000;
const say = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + "\n");
const [executablePath, url] = process.argv.slice(2);

// What the page must never do: write an error, or ask another host.
const problems = [];

function watch(page) {
  page.on("pageerror", (error) => problems.push(`error: ${error.stack ?? error}`));
  page.on("console", (message) => {
    // The browser itself reports each response of 400 and above, and each failed request.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) problems.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    const asked = new URL(request.url());
    if (asked.protocol !== "data:" && asked.origin !== new URL(url).origin) problems.push(`another host: ${request.url()}`);
  });
}

const within = { timeout: PATIENCE };

const COMMANDS = {
  // A view by its address, as a link that somebody was sent.
  async open({ page }, { view }) {
    await page.goto(new URL(view, url).href, { waitUntil: "load", ...within });
  },
  // In the dialog, while one is open.
  async click({ page }, { role, name }) {
    const dialog = page.locator("dialog[open]");
    const scope = (await dialog.count()) > 0 ? dialog : page;
    await scope.getByRole(role, { name, exact: true }).first().click(within);
  },
  fill: ({ page }, { label, value }) => page.getByLabel(label).fill(value, within),
  choose: ({ page }, { label, value }) => page.getByLabel(label, { exact: true }).selectOption(value, within),
  press: ({ page }, { key }) => page.keyboard.press(key),
  // Waits until the text is visible.
  see: ({ page }, { text }) => page.getByText(text).filter({ visible: true }).first().waitFor(within),
  // How many elements of that role and name can be seen.
  async count({ page }, { role, name }) {
    return { count: await page.getByRole(role, { name, exact: true }).count() };
  },
  async text({ page }, { selector }) {
    const text = await page.locator(selector).first().innerText(within);
    return { text: text.replace(/\n+/g, "\n") };
  },
  // The cells of the row with that heading, by the titles of their columns.
  row: ({ page }, { heading }) =>
    page.evaluate((heading) => {
      const row = [...document.querySelectorAll("tbody tr")].find((one) => one.querySelector("th")?.innerText === heading);
      if (!row) return { cells: null };
      const titles = [...row.closest("table").querySelectorAll("thead th")].map((one) => one.innerText);
      return { cells: Object.fromEntries([...row.children].map((cell, index) => [titles[index], cell.innerText])) };
    }, heading),
  async focused({ page }) {
    return { text: await page.evaluate(() => document.activeElement.innerText || document.activeElement.id) };
  },
  async view({ page }, { width, height, scheme }) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: scheme });
  },
  // What reaches beyond the window, what axe-core finds, and what it cannot judge.
  async inspect({ page }) {
    if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(readFileSync(require.resolve("axe-core/axe.min.js"), "utf8"));
    const { violations, incomplete } = await page.evaluate(() => window.axe.run(document));
    const names = (found) => found.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 200)).join(" | ")}`);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    return { violations: names(violations), incomplete: names(incomplete), overflow };
  },
  problems: () => ({ problems }),
  async screenshot({ page }, { path }) {
    await page.screenshot({ path });
  },
};

async function main() {
  // Without a sandbox: the tests may run as root, and the only pages are our own.
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"] });
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  watch(page);
  say("started", { version: browser.version() });
  for await (const line of createInterface({ input: process.stdin })) {
    const { do: name, ...options } = JSON.parse(line);
    try {
      say("done", (await COMMANDS[name]({ page }, options)) ?? {});
    } catch (error) {
      say("failed", { command: line, message: String(error?.message ?? error), text: await page.innerText("body").catch(() => null) });
    }
  }
  await browser.close();
}

main().catch((error) => {
  say("failed", { message: String(error?.stack ?? error) });
  process.exit(1);
});
