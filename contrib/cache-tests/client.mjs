// Runs tests of the suite against one cache: `node client.mjs SUITE BASE-URL`, with the identifiers of the tests as a
// JSON list on stdin. Prints a JSON object with a verdict for each, and the suite's reason if it did not pass.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'

import { loadSuite } from './suite.mjs'

const [folder, base] = process.argv.slice(2)
const suite = await loadSuite(folder)
const { runTests, getResults } = await import(join(folder, 'client/runner.mjs'))
const fetch = (await import(join(folder, '../node-fetch/lib/index.mjs'))).default

const wanted = new Set(JSON.parse(readFileSync(0, 'utf8')))
const tests = suite.filter(test => wanted.has(test.id))
// The suite prints warnings; only the verdicts may be on stdout.
console.log = console.error
await runTests([{ tests }], fetch, false, base)
process.stdout.write(JSON.stringify(Object.fromEntries(Object.entries(getResults()).map(judge))))

/** `setup` means that the test could not get to its question. */
function judge ([id, result]) {
  if (result === true) return [id, { verdict: 'pass' }]
  const [kind, reason] = result
  return [id, { verdict: kind === 'Setup' ? 'setup' : 'fail', reason: `${kind}: ${reason}` }]
}
