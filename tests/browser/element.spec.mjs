// The element <attention-lab> in somebody's page.
import { test, expect, pixels } from './lab.mjs';

/** A page of the lab's own site that holds nothing but `html`, and hears every event of its elements. */
async function host(lab, html) {
  const body = pageOf(html, './attention-lab.js');
  await lab.page.route('**/host.html', (route) => route.fulfill({ contentType: 'text/html', body }));
  return lab.open('host.html');
}

const pageOf = (html, module) => `<!doctype html><html lang="en"><head><link rel="icon" href="data:,"></head><body>${html}
  <script>
    window.heard = [];
    for (const element of document.querySelectorAll('attention-lab'))
      for (const type of ['ready', 'height', 'state', 'result', 'error'])
        element.addEventListener(type, (event) => window.heard.push({ id: element.id, type, detail: event.detail }));
  </script>
  <script type="module" src="${module}"></script></body></html>`;

const heard = (page, id, type) => page.evaluate(([id, type]) => window.heard.filter((m) => m.id === id && m.type === type).map((m) => m.detail), [id, type]);

/** Has the page's worker count the devices it asks for, and take its adapter for a real GPU. */
async function countDevices(page) {
  await page.addInitScript(() => {
    window.devices = 0;
    new BroadcastChannel('devices').onmessage = () => (window.devices += 1);
  });
  const counting = `{
    const told = new BroadcastChannel('devices');
    const request = GPUAdapter.prototype.requestDevice;
    GPUAdapter.prototype.requestDevice = function (...given) { told.postMessage('asked'); return request.apply(this, given); };
    const real = { vendor: 'test', architecture: '', device: '', description: '', isFallbackAdapter: false, subgroupMinSize: 4, subgroupMaxSize: 4 };
    for (const it of [GPUAdapter.prototype, GPUDevice.prototype])
      Object.defineProperty(it, it === GPUAdapter.prototype ? 'info' : 'adapterInfo', { get: () => real });
  }\n`;
  await page.context().route('**/worker.js', async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: counting + (await response.text()) });
  });
}

test('two elements draw two variants on one device', async ({ lab, page }) => {
  await countDevices(page);
  await host(lab, `<attention-lab id="a" variant="sliding_window" sliding_window.window="16" view="mask" n="64" run="auto" theme="light"></attention-lab>
    <attention-lab id="b" variant="full" view="mask" n="64" run="auto" theme="light"></attention-lab>`);
  for (const id of ['a', 'b']) {
    await page.locator(`#${id}`).scrollIntoViewIfNeeded();
    await expect(page.locator(`#${id} #plate-0`)).toHaveAttribute('data-drawn', 'exact', { timeout: 60_000 });
    expect((await heard(page, id, 'ready')).map((detail) => detail.backend)).toEqual(['webgpu']);
    expect((await heard(page, id, 'height')).at(-1).height).toBeGreaterThan(100);
  }
  const corner = async (id) => (await pixels(page.locator(`#${id} #plate-0 canvas`))).at(0.97, 0.06).slice(0, 3);
  const middle = async (id) => (await pixels(page.locator(`#${id} #plate-0 canvas`))).at(0.507, 0.507).slice(0, 3);
  const far = (a, b) => Math.max(...a.map((x, i) => Math.abs(x - b[i])));
  expect(far(await corner('b'), await middle('b')), 'full attention allows every pair').toBeLessThan(30);
  expect(far(await corner('a'), await middle('a')), 'a window allows the diagonal only').toBeGreaterThan(60);
  expect(await page.evaluate(() => window.devices)).toBe(1);

  // One is taken away; the other goes on, on the same device.
  await page.evaluate(() => document.getElementById('a').remove());
  await page.evaluate(() => document.getElementById('b').setAttribute('variant', 'linear'));
  await expect(page.locator('#b #state-line')).toContainText('Linear');
  await expect(page.locator('#b #plate-0')).toHaveAttribute('data-drawn', 'exact', { timeout: 60_000 });
  expect(await page.evaluate(() => window.devices)).toBe(1);
});

test('an attribute that changes changes the figure, and a bad one is named', async ({ lab }) => {
  const page = await host(lab, '<attention-lab id="a" variant="sliding_window" view="mask" n="64" run="auto" colour="red"></attention-lab>');
  const plate = page.locator('#a #plate-0');
  await expect(plate).toHaveAttribute('data-drawn', 'exact', { timeout: 30_000 });
  await expect.poll(async () => (await heard(page, 'a', 'error')).map((detail) => detail.key)).toEqual(['colour']);
  const change = (name, value) => page.evaluate(([name, value]) => {
    const element = document.getElementById('a');
    if (value === null) element.removeAttribute(name);
    else element.setAttribute(name, value);
  }, [name, value]);
  const draws = async () => Number(await plate.getAttribute('data-draws'));
  let before = await draws();
  await change('n', '128');
  await expect(page.locator('#a #state-line')).toContainText('128 tokens');
  await expect.poll(draws).toBeGreaterThan(before);
  await expect.poll(async () => (await heard(page, 'a', 'state')).at(-1).query).toContain('n=128');
  before = await draws();
  await change('causal', '1');
  await expect(page.locator('#a #state-line')).toContainText('causal');
  await change('causal', null);
  await expect(page.locator('#a #state-line')).toContainText('bidirectional');
  await expect.poll(draws).toBeGreaterThan(before);
  await change('n', 'banana');
  await expect.poll(async () => (await heard(page, 'a', 'error')).at(-1)).toMatchObject({ key: 'n', message: expect.stringContaining('banana') });
  // What frames the figure builds it anew, with the state that it had.
  await change('n', '128');
  await change('caption', 'A caption');
  await expect(page.locator('#a .embed-caption')).toContainText('A caption');
  await expect(plate).toHaveAttribute('data-drawn', 'exact', { timeout: 30_000 });
  await expect(page.locator('#a #state-line')).toContainText('128 tokens');
  await change('theme', 'dark');
  await expect(page.locator('#a .embedded')).toHaveAttribute('data-theme', 'dark');
  expect(await page.locator('#a .embedded').evaluate((root) => getComputedStyle(root).colorScheme)).toBe('dark');
});

test('an element takes a rule of one\'s own', async ({ lab }) => {
  const page = await host(lab, '<attention-lab id="a" variant="custom" rule="j == i" view="mask" n="16" gpu="cpu" run="auto"></attention-lab>');
  await expect(page.locator('#a #plate-0')).toHaveAttribute('data-drawn', 'exact', { timeout: 30_000 });
  await expect(page.locator('#a #state-line')).toContainText('rule j == i');
  await page.evaluate(() => document.getElementById('a').setAttribute('rule', 'j <='));
  await expect.poll(async () => (await heard(page, 'a', 'error')).at(-1)).toMatchObject({ key: 'rule' });
  await page.evaluate(() => document.getElementById('a').set({ rule: 'abs(i - j) < 2' }));
  await expect(page.locator('#a #state-line')).toContainText('rule abs(i - j) < 2');
});

test('a program runs, sets, pauses and exports an element', async ({ lab }) => {
  const page = await host(lab, '<attention-lab id="a" variant="full,linear" view="speed" heads="1" dim="16" gpu="cpu"></attention-lab>');
  await expect(page.locator('#a #run')).toBeVisible({ timeout: 30_000 });
  expect(await heard(page, 'a', 'ready')).toEqual([]);
  await page.evaluate(() => document.getElementById('a').set({ causal: true }));
  await page.evaluate(() => document.getElementById('a').run());
  await expect.poll(async () => (await heard(page, 'a', 'ready')).length, { timeout: 30_000 }).toBe(1);
  await expect.poll(async () => (await heard(page, 'a', 'result')).length, { timeout: 90_000 }).toBe(1);
  const [{ result }] = await heard(page, 'a', 'result');
  expect(result.rows.length).toBe(10);
  expect(result.rows.every((row) => row.causal)).toBe(true);
  const exported = await page.evaluate(async () => {
    const element = document.getElementById('a');
    element.pause();
    return { result: await element.export(), query: element.query };
  });
  expect(exported.result.rows.length).toBe(10);
  expect(exported.query).toContain('causal=1');
});

test('an element trains, leaves the runs of the page alone, and is paused by a program', async ({ lab }) => {
  test.setTimeout(180_000);
  const page = await host(lab, `<attention-lab id="a" view="train" task="copy" train.length="8" train.width="16" heads="2"
    train.batch="8" train.steps="50000" variant="full" run="auto" gpu="cpu"></attention-lab>`);
  const controls = page.locator('#a #race-controls');
  await expect(controls).toHaveAttribute('data-doing', 'running', { timeout: 60_000 });
  await page.evaluate(() => document.getElementById('a').pause());
  await expect(controls).toHaveAttribute('data-doing', 'paused', { timeout: 30_000 });
  await page.evaluate(() => document.getElementById('a').run());
  await expect(controls).toHaveAttribute('data-doing', 'running', { timeout: 30_000 });
  await expect(page.locator('#a #chart-loss svg')).toBeVisible();
  await page.evaluate(() => document.getElementById('a').pause());
  await expect(controls).toHaveAttribute('data-doing', 'paused', { timeout: 30_000 });
  const { runs } = await page.evaluate(() => document.getElementById('a').export());
  expect(runs[0].samples.length).toBeGreaterThan(0);
  const kept = await page.evaluate(async () => (await indexedDB.databases()).map((database) => database.name));
  expect(kept).not.toContain('attention-lab');
});

test('an element far below waits until it is near', async ({ lab }) => {
  const page = await host(lab, '<div style="block-size: 6000px"></div><attention-lab id="a" variant="full" view="mask" n="16" run="auto"></attention-lab>');
  await page.waitForTimeout(1500);
  expect(await page.locator('#a .embedded').count()).toBe(0);
  await page.locator('#a').scrollIntoViewIfNeeded();
  await expect(page.locator('#a #plate-0')).toHaveAttribute('data-drawn', 'exact', { timeout: 30_000 });
});

test("an element works in another site's page", async ({ page, baseURL }) => {
  // The same server by its other name is another origin, and any page of it will do.
  const other = new URL('embed.html?run=never', baseURL);
  other.hostname = other.hostname === 'localhost' ? '127.0.0.1' : 'localhost';
  await page.goto(other.href);
  await page.evaluate(async (address) => {
    document.body.innerHTML = '<attention-lab id="a" variant="sliding_window" view="mask" n="32" run="auto"></attention-lab>';
    await import(address);
  }, new URL('attention-lab.js', baseURL).href);
  await expect(page.locator('#a #plate-0')).toHaveAttribute('data-drawn', 'exact', { timeout: 30_000 });
  expect((await pixels(page.locator('#a #plate-0 canvas'))).distinct()).toBeGreaterThan(2);
  await expect(page.locator('#a .embed-caption a')).toHaveAttribute('href', new RegExp(`^${baseURL}`));
});
