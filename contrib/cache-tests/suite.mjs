// The installed suite, through its own modules.

import { join } from 'node:path'

/** All tests of the suite for caches that are no browsers, each with the identifier of its `group` and its `kind`. */
export async function loadSuite (folder) {
  const groups = (await import(join(folder, 'tests/index.mjs'))).default
  return groups.flatMap(group => group.tests.filter(test => !test.browser_only).map(test => {
    return Object.assign(test, { group: group.id, kind: test.kind ?? 'required' })
  }))
}

/** The suite's origin as a request handler. Its own server would listen on all addresses. */
export async function loadOrigin (folder) {
  const load = async name => (await import(join(folder, `server/handle-${name}.mjs`))).default
  const handlers = { config: await load('config'), state: await load('state'), test: await load('test') }
  return (request, response) => {
    const [, name, ...rest] = new URL(request.url, 'http://origin.example/').pathname.split('/')
    const handler = handlers[name]
    if (handler === undefined) response.writeHead(404).end()
    else handler(rest, request, response)
  }
}
