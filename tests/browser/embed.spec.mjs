// Embeds, as the tutorial uses them.
import { test, expect } from './lab.mjs';

test('the tutorial embeds figures, which tell their height and take a state', async ({ lab }) => {
  const page = await lab.open('tutorial.html');
  await page.evaluate(() => {
    window.heard = [];
    addEventListener('message', (event) => window.heard.push(event.data));
  });
  const frame = page.frameLocator('#window');
  await expect(frame.locator('#plate-0')).toHaveAttribute('data-drawn', 'exact', { timeout: 30_000 });
  await expect(page.locator('#window')).toHaveAttribute('style', /height/);
  await page.getByRole('button', { name: '512 tokens' }).click();
  await expect(frame.locator('#state-line')).toContainText('512 tokens');
  await expect.poll(() => page.evaluate(() => window.heard.some((m) => m.source === 'attention-lab' && m.type === 'state' && m.query.includes('n=512')))).toBe(true);
  // The second waits for a click, and says so; the third runs by itself when it is near.
  await page.locator('#race').scrollIntoViewIfNeeded();
  await expect(page.locator('#race #run')).toBeVisible();
  await page.locator('#loss').scrollIntoViewIfNeeded();
  await expect(page.locator('#loss #plate-0')).toHaveAttribute('data-drawn', 'exact', { timeout: 30_000 });
});

test('an embed shows what its address says and names what it cannot', async ({ lab }) => {
  const page = await lab.open('embed.html?v=1&variant=linear&n=64&run=auto&show=legend&lock=1&caption=A+caption&n2=5');
  await expect(page.locator('#plate-0')).toHaveAttribute('data-drawn', 'exact', { timeout: 30_000 });
  await expect(page.locator('#state-line')).toHaveCount(0);
  await expect(page.locator('.embed-caption')).toContainText('A caption');
  await expect(page.locator('#banner-link')).toContainText('n2');
});

const LEARNS = 'view=train&task=copy&train.length=8&train.width=16&heads=2&train.batch=8&train.steps=30&variant=full,linear';

/** A page that frames an embed and keeps what it says. */
async function framing(lab, query) {
  const body = `<!doctype html><html lang="en"><head><link rel="icon" href="data:,"></head><body>
    <script>window.heard = []; addEventListener('message', (event) => heard.push(event.data));</script>
    <iframe id="figure" width="700" height="900" src="./embed.html?v=1&${query}"></iframe></body></html>`;
  await lab.page.route('**/framing.html', (route) => route.fulfill({ contentType: 'text/html', body }));
  return lab.open('framing.html');
}
const heard = (page, type) => page.evaluate((type) => window.heard.filter((m) => m.source === 'attention-lab' && m.type === type), type);
const tell = (page, message) => page.evaluate((message) => document.getElementById('figure').contentWindow.postMessage(message, '*'), message);

test('an embed trains by itself, and tells its parent what came of it', async ({ lab }) => {
  const page = await framing(lab, `${LEARNS}&run=auto&hide=verdict`);
  const frame = page.frameLocator('#figure');
  await expect(frame.locator('#race-controls')).toHaveAttribute('data-doing', 'done', { timeout: 90_000 });
  await expect(frame.locator('#settings')).toContainText('steps 30');
  await expect(frame.locator('#chart-loss svg')).toBeVisible();
  await expect(frame.locator('#chart-accuracy svg')).toBeVisible();
  // What was not asked for, and what was hidden.
  for (const id of ['chart-distance', 'runs', 'verdict', 'task']) await expect(frame.locator(`#${id}`)).toHaveCount(0);
  await expect.poll(async () => (await heard(page, 'result')).length).toBe(1);
  const [{ result }] = await heard(page, 'result');
  expect(result.schema).toBe(1);
  expect(result.runs.map((run) => run.samples.at(-1).step)).toEqual([30, 30]);
  expect(result.runs[0].samples.at(-1).held.loss).toBeGreaterThan(0);
  expect((await heard(page, 'height')).at(-1).height).toBeGreaterThan(200);
  expect((await heard(page, 'state')).at(-1).query).toContain('view=train');
  expect(await heard(page, 'error')).toEqual([]);
});

test('an embed trains on a click, and does what its parent says', async ({ lab }) => {
  test.setTimeout(180_000);
  const page = await framing(lab, `${LEARNS.replace('steps=30', 'steps=50000')}&show=controls,setup,loss`);
  const frame = page.frameLocator('#figure');
  await expect(frame.locator('#run')).toHaveText('Start');
  await expect(frame.locator('#race-controls')).toHaveCount(0);
  await frame.locator('#run').click();
  const doing = (what) => expect(frame.locator('#race-controls')).toHaveAttribute('data-doing', what, { timeout: 60_000 });
  await doing('running');
  await expect(frame.locator('#task')).toBeVisible();
  await expect(frame.locator('#chart-accuracy')).toHaveCount(0);
  await tell(page, { type: 'pause' });
  await doing('paused');
  await tell(page, { type: 'set', state: { 'train.steps': 20, variant: 'full,linformer' } });
  await expect(frame.locator('#train-steps')).toHaveValue('20');
  await expect.poll(async () => (await heard(page, 'state')).at(-1).query).toContain('train.steps=20');
  await tell(page, { type: 'run' });
  await doing('running');
  await frame.locator('#race-start').click();
  await doing('done');
  await expect.poll(async () => (await heard(page, 'result')).length).toBe(1);
  // Why one of them was not trained.
  expect((await heard(page, 'error')).map((m) => m.message).join()).toContain('causal');
});
