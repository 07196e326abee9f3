// Runs the suite against larder and nginx, and compares the verdicts with results.json.
//
//   node main.mjs SUITE LARDER [--no-nginx] [--update] [--why PATTERN]

import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

import { listen, startAdapter } from './adapter.mjs'
import { findings, summary } from './compare.mjs'
import { loadOrigin, loadSuite } from './suite.mjs'

/** Groups whose tests make upstream fail. They get a larder of their own, whose circuit breaker they may open. */
const FAILING_GROUPS = new Set(['stale'])

const [suiteFolder, larderProgram, ...options] = process.argv.slice(2)
const beside = name => fileURLToPath(new URL(name, import.meta.url))
const readJson = name => JSON.parse(readFileSync(beside(name), 'utf8'))
const work = mkdtempSync(join(tmpdir(), 'cache-tests-'))
const children = []
const has = option => options.includes(option)

process.exitCode = await main().finally(async () => {
  await Promise.all(children.map(stop))
  rmSync(work, { recursive: true, force: true })
})
// The servers of this process have idle connections.
process.exit()

async function main () {
  const suite = await loadSuite(suiteFolder)
  const origin = await listen(await loadOrigin(suiteFolder))
  const excluded = readJson('not-applicable.json')
  const tests = suite.filter(test => !excluded.some(rule => {
    return rule.groups?.includes(test.group) || (rule.tests && new RegExp(rule.tests).test(test.id))
  }))
  const stored = readJson('results.json')
  const [larder, nginx] = await Promise.all([judgeLarder(origin, tests), judgeNginx(origin, tests, stored)])
  // On a loaded machine a test may miss its time, so only a second run makes a difference.
  const different = tests.filter(({ id }) => stored[id] !== undefined && stored[id].larder !== larder[id].verdict)
  if (different.length > 0) console.log(`run again: ${different.map(test => test.id).join(' ')}`)
  Object.assign(larder, await judgeLarder(origin, different))

  const results = {}
  for (const { id, kind } of tests.sort((a, b) => a.id < b.id ? -1 : 1)) {
    results[id] = { kind, larder: larder[id].verdict, nginx: nginx[id].verdict }
    if (larder[id].verdict !== 'pass' && stored[id]?.argued) results[id].argued = stored[id].argued
  }
  console.log(summary(results, suite.length))
  if (has('--why')) {
    const pattern = new RegExp(options[options.indexOf('--why') + 1])
    for (const id of Object.keys(results).filter(id => pattern.test(id))) {
      console.log(`${id}\n  larder ${JSON.stringify(larder[id])}\n  nginx  ${JSON.stringify(nginx[id])}`)
    }
  }
  if (has('--update')) writeFileSync(beside('results.json'), format(results))
  const found = findings(has('--update') ? results : stored, results, larder)
  for (const line of found.notes) console.log(line)
  for (const line of found.failures) console.error(line)
  return found.failures.length === 0 ? 0 : 1
}

/** The verdicts about a new larder, by test. */
async function judgeLarder (origin, tests) {
  const isFailing = test => FAILING_GROUPS.has(test.group)
  const parts = [tests.filter(test => !isFailing(test)), tests.filter(isFailing)]
  const verdicts = await Promise.all(parts.map(async part => {
    return part.length === 0 ? {} : runTests(await startLarder(origin), part)
  }))
  return Object.assign({}, ...verdicts)
}

/** The verdicts about nginx, or the stored ones where it is not installed. */
async function judgeNginx (origin, tests, stored) {
  if (!has('--no-nginx')) return runTests(await startNginx(origin), tests)
  return Object.fromEntries(tests.map(({ id }) => [id, { verdict: stored[id]?.nginx ?? 'unknown' }]))
}

/** One line for each test. */
function format (results) {
  const lines = Object.entries(results).map(([id, result]) => {
    return `  ${JSON.stringify(id)}: ${JSON.stringify(result).replace(/([,:])"/g, '$1 "')}`
  })
  return `{\n${lines.join(',\n')}\n}\n`
}

/** The verdicts of the suite's client, by test. */
async function runTests (base, tests) {
  const args = ['--no-warnings', beside('client.mjs'), suiteFolder, base]
  const child = start(process.execPath, args, ['pipe', 'pipe', 'inherit'])
  child.stdin.end(JSON.stringify(tests.map(test => test.id)))
  let text = ''
  for await (const chunk of child.stdout) text += chunk
  return JSON.parse(text)
}

/** Starts a larder with an adapter, and returns the address for the suite's client. */
async function startLarder (origin) {
  const adapter = await startAdapter(origin)
  const home = mkdtempSync(join(work, 'larder-'))
  const child = start(larderProgram, [
    'serve', '--listen', '127.0.0.1:0', '--store', join(home, 'store'),
    '--index', `http://127.0.0.1:${adapter.backPort}/`
  ], ['ignore', 'pipe', 'pipe'], { HOME: home, PATH: process.env.PATH })
  const log = []
  child.stderr.on('data', chunk => log.push(chunk))
  for await (const line of createInterface(child.stdout)) {
    const port = line.match(/^listening on .*:(\d+)/)?.[1]
    if (port === undefined) continue
    adapter.larderPort = Number(port)
    child.stdout.resume()
    return `http://127.0.0.1:${adapter.frontPort}`
  }
  throw new Error(`larder does not listen:\n${Buffer.concat(log)}`)
}

/** Starts nginx in front of the origin, and returns its address. */
async function startNginx (origin) {
  const home = join(work, 'nginx')
  mkdirSync(join(home, 'temp'), { recursive: true })
  const port = await freePort()
  const text = readFileSync(beside('nginx.conf'), 'utf8')
  writeFileSync(join(home, 'nginx.conf'), text.replace('NGINX_PORT', port).replace('ORIGIN_PORT', origin))
  start('nginx', ['-p', home, '-c', 'nginx.conf', '-e', 'stderr'], ['ignore', 'inherit', 'inherit'])
  await answers(port)
  return `http://127.0.0.1:${port}`
}

function start (program, args, stdio, env = process.env) {
  const child = spawn(program, args, { stdio, env })
  children.push(child)
  return child
}

function stop (child) {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = new Promise(resolve => child.once('exit', resolve))
  child.kill()
  return ended
}

function freePort () {
  const server = net.createServer()
  return new Promise(resolve => server.listen(0, '127.0.0.1', () => {
    const { port } = server.address()
    server.close(() => resolve(port))
  }))
}

/** Waits until something answers on this port. */
async function answers (port) {
  for (let tries = 0; tries < 200; tries++) {
    const isUp = await new Promise(resolve => {
      http.get({ host: '127.0.0.1', port }, response => resolve(response.resume())).on('error', () => resolve(false))
    })
    if (isUp) return
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  throw new Error(`nothing answers on port ${port}`)
}
