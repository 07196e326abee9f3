// Stands on both sides of one larder:
//
//   suite's client ── front ── larder ── back ── suite's origin
//                       └── /config, /state ────────┘
//
// The front requests an index entry for `/test/UUID` and answers with the origin's response that is in the entry. The
// back is larder's upstream and makes entries of the origin's responses. Neither caches, decides or changes anything
// that larder reads or says about freshness and validation.

import http from 'node:http'

import { indexPath, opaqueTag, translateTags, unwrap, uuidOfIndexPath, valueOf, without, wrap } from './translate.mjs'

/** Fields of one connection, or of one body. Each hop sets its own. */
const OWN_FIELDS = new Set(['connection', 'content-length', 'host', 'keep-alive', 'transfer-encoding'])
/** Fields that are larder's own where it sends them. All others are the origin's. */
const LARDERS_FIELDS = new Set(['age', 'cache-status', 'date', 'warning'])

/** Starts a back for the origin on this port. `larderPort` of the result must be set before the first test. */
export async function startAdapter (originPort) {
  const adapter = new Adapter(originPort)
  adapter.backPort = await listen((request, response) => adapter.answerLarder(request, response))
  adapter.frontPort = await listen((request, response) => adapter.answerClient(request, response))
  return adapter
}

/** Starts a server on a free loopback port, and returns the port. */
export function listen (handler) {
  const server = http.createServer(handler)
  return new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve(server.address().port)))
}

class Adapter {
  constructor (originPort) {
    this.originPort = originPort
    /** The number of the client's last request, by test. larder passes on no request field that would carry it. */
    this.requestNumbers = new Map()
    /** The origin's responses that the front has seen, by larder's entity tag. */
    this.seen = new Map()
    /** larder's entity tag for the origin's, by test. */
    this.tags = new Map()
  }

  // The back.

  async answerLarder (request, response) {
    if (request.url === '/config.json') {
      response.end(JSON.stringify({ dl: `http://127.0.0.1:${this.backPort}/dl` }))
      return
    }
    const uuid = uuidOfIndexPath(request.url)
    if (uuid === undefined) {
      response.writeHead(404).end()
      return
    }
    try {
      const fields = without(request.rawHeaders, OWN_FIELDS)
      const number = this.requestNumbers.get(uuid)
      if (number !== undefined) fields.push('Req-Num', number)
      const answer = await send(this.originPort, 'GET', `/test/${uuid}`, fields, Buffer.alloc(0))
      const kept = without(answer.fields, OWN_FIELDS)
      const body = answer.status === 200 ? wrap(uuid, kept, answer.body.toString()) : answer.body
      respond(response, answer.status, kept, body)
    } catch {
      // The origin has closed the connection, as a test may want.
      response.destroy()
    }
  }

  // The front.

  async answerClient (request, response) {
    try {
      const body = await collect(request)
      const test = request.url.match(/^\/test\/([0-9a-f-]{36})$/)
      if (test !== null) {
        await this.answerThroughLarder(test[1], request, body, response)
      } else if (/^\/(config|state)\//.test(request.url)) {
        const fields = without(request.rawHeaders, OWN_FIELDS)
        const answer = await send(this.originPort, request.method, request.url, fields, body)
        respond(response, answer.status, without(answer.fields, OWN_FIELDS), answer.body)
      } else {
        respond(response, 404, [], 'larder has no resource for this address\n')
      }
    } catch {
      response.destroy()
    }
  }

  async answerThroughLarder (uuid, request, body, response) {
    this.requestNumbers.set(uuid, request.headers['req-num'])
    const tags = this.tags.get(uuid) ?? new Map()
    const fields = without(request.rawHeaders, OWN_FIELDS)
    for (let at = 0; at < fields.length; at += 2) {
      if (fields[at].toLowerCase() === 'if-none-match') fields[at + 1] = translateTags(fields[at + 1], tags)
    }
    const answer = await send(this.larderPort, request.method, indexPath(uuid), fields, body)
    const tag = valueOf(answer.fields, 'etag')
    if (answer.status === 200 && request.method === 'GET') {
      const origin = unwrap(answer.body.toString())
      const originsTag = valueOf(origin.fields, 'etag')
      if (originsTag !== undefined) this.tags.set(uuid, tags.set(opaqueTag(originsTag), tag))
      this.seen.set(tag, origin)
    }
    const origin = this.seen.get(tag)
    if (origin === undefined) {
      // An error, or a refused method.
      respond(response, answer.status, without(answer.fields, OWN_FIELDS), answer.body)
    } else if (answer.status === 304) {
      const originsTag = valueOf(origin.fields, 'etag') ?? tag
      respond(response, 304, [...without(answer.fields, new Set([...OWN_FIELDS, 'etag'])), 'ETag', originsTag], '')
    } else {
      const larders = answer.fields.filter((_, at) => LARDERS_FIELDS.has(answer.fields[at - at % 2].toLowerCase()))
      const replaced = new Set(larders.filter((_, at) => at % 2 === 0).map(name => name.toLowerCase()))
      respond(response, answer.status, [...without(origin.fields, replaced), ...larders], origin.body)
    }
  }
}

/** Sends one request, and returns the response's `status`, `fields` and `body`. */
function send (port, method, path, fields, body) {
  return new Promise((resolve, reject) => {
    const headers = [...fields, 'Host', `127.0.0.1:${port}`]
    if (body.length > 0) headers.push('Content-Length', String(body.length))
    const request = http.request({ host: '127.0.0.1', port, method, path, headers }, response => {
      const { statusCode: status, rawHeaders: fields } = response
      collect(response).then(body => resolve({ status, fields, body }), reject)
    })
    request.on('error', reject)
    request.end(body)
  })
}

async function collect (stream) {
  const chunks = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks)
}

function respond (response, status, fields, body) {
  response.sendDate = false
  const length = status === 304 ? [] : ['Content-Length', String(Buffer.byteLength(body))]
  response.writeHead(status, [...fields, ...length])
  response.end(body)
}
