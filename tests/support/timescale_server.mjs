// A server that speaks PostgreSQL's protocol, for TimescaleDB compiled to WebAssembly (PGlite).
//
//   node timescale_server.mjs PACKAGE PORT [PORT...]
//
// PACKAGE is the folder of the npm package. At each PORT, on 127.0.0.1, there is a database of its own, in memory, made
// when somebody first connects there; 'ready' is printed when all ports are listened at.
//
// A database lets one session in at a time, as one with `CONNECTION LIMIT 1` does: the next is kept waiting for a
// moment, since whoever was before may be on the way out, and is then refused with SQLSTATE 53300. It has one name,
// whatever is asked for, no passwords and no TLS. Who asks for the database 'fresh' gets a new one in its place.
//
// PGlite takes whole messages and gives back what the server answers, but for COPY FROM STDIN, where the server would
// read on and find nothing: there this program answers the first part itself, collects the rows, and passes on all at
// once. An error of a COPY is therefore told at its end.

import net from 'node:net'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const [folder, ...ports] = process.argv.slice(2)
const load = (file) => import(pathToFileURL(path.join(folder, 'dist', file)))
const { PGlite } = await load('index.js')
const { timescaledb } = await load('timescaledb/index.js')

/** How long a session waits for the one before it. */
const PATIENCE_MS = 700

const SSL_REQUEST = 80877103
const GSS_REQUEST = 80877104
const CANCEL_REQUEST = 80877102

/** A message: its letter, its length, its body. */
function message(letter, ...parts) {
  const body = Buffer.concat(parts)
  const head = Buffer.alloc(5)
  head.write(letter, 0)
  head.writeInt32BE(4 + body.length, 1)
  return Buffer.concat([head, body])
}

const text = (value) => Buffer.from(`${value}\0`)
const parameter = (name, value) => message('S', text(name), text(value))
const failure = (code, words) =>
  message('E', Buffer.from('SFATAL\0VFATAL\0'), text(`C${code}`), text(`M${words}`), Buffer.from([0]))

/** COPY IN in text form, of no columns that anybody counts. */
const COPY_IN = message('G', Buffer.from([0, 0, 0]))
const PARSED = message('1')
const BOUND = message('2')

/** The text at an offset, and where it ends. */
function word(buffer, offset) {
  const end = buffer.indexOf(0, offset)
  return [buffer.toString('utf8', offset, end), end + 1]
}

/** The parameters of a startup message. */
function startup(packet) {
  const words = packet.toString('utf8', 8).split('\0')
  const parameters = {}
  for (let at = 0; at + 1 < words.length; at += 2) parameters[words[at]] = words[at + 1]
  return parameters
}

const isCopyIn = (sql) => /^\s*copy\b[\s\S]*\bfrom\s+stdin\b/i.test(sql)

/** The messages but those of some letters. */
function without(messages, letters) {
  const kept = []
  for (let offset = 0; offset + 5 <= messages.length; ) {
    const length = 1 + messages.readInt32BE(offset + 1)
    if (!letters.includes(String.fromCharCode(messages[offset]))) kept.push(messages.subarray(offset, offset + length))
    offset += length
  }
  return Buffer.concat(kept)
}

/** A database, and who is in it. */
class Database {
  #made = null
  #session = null
  #waiting = []

  /** The session's turn; false where it did not come in time. */
  async enter(session) {
    this.#made ??= this.#make()
    await this.#made
    if (this.#session === null) {
      this.#session = session
      return true
    }
    return new Promise((resolve) => {
      const entry = { session, resolve }
      entry.timer = setTimeout(() => {
        this.#waiting = this.#waiting.filter((other) => other !== entry)
        resolve(false)
      }, PATIENCE_MS)
      this.#waiting.push(entry)
    })
  }

  /** Throws all away that is in it. */
  async renew() {
    const old = this.pg
    this.#made = this.#make()
    await this.#made
    await old.close().catch(() => {})
  }

  async #make() {
    this.pg = await PGlite.create({ extensions: { timescaledb } })
    await this.#reset()
  }

  /** Sets everything as a new session has it; PGlite's own beginnings are others. */
  async #reset() {
    for (const sql of ['DISCARD ALL', 'SET search_path = "$user", public', 'SET client_min_messages = notice']) {
      await this.run(sql)
    }
  }

  /** Clears up after a session, and lets the next in. */
  async leave(session) {
    if (this.#session !== session) return
    await this.run('ROLLBACK')
    await this.#reset()
    const next = this.#waiting.shift()
    this.#session = next?.session ?? null
    if (next) {
      clearTimeout(next.timer)
      next.resolve(true)
    }
  }

  async run(sql) {
    await this.answer(message('Q', text(sql)))
  }

  async answer(messages) {
    return Buffer.from(await this.pg.execProtocolRaw(messages))
  }
}

/** One connection. */
class Session {
  #database
  #socket
  #input = Buffer.alloc(0)
  #chunks = []
  #isBusy = false
  #hasEntered = false
  #hasEnded = false
  /** Messages of the extended protocol that wait for a Sync or Flush. */
  #batch = []
  /** A COPY FROM STDIN whose rows are being collected. */
  #copy = null
  #copyStatements = new Set()
  #copyPortals = new Set()

  constructor(database, socket) {
    this.#database = database
    this.#socket = socket
    socket.on('data', (data) => {
      this.#chunks.push(data)
      this.#work()
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#hasEnded = true
      if (!this.#isBusy) this.#database.leave(this)
    })
  }

  async #work() {
    if (this.#isBusy) return
    this.#isBusy = true
    try {
      while (!this.#hasEnded) {
        if (this.#chunks.length > 0) this.#input = Buffer.concat([this.#input, ...this.#chunks.splice(0)])
        const taken = this.#hasEntered ? this.#take(1) : this.#take(0)
        if (taken === null) break
        if (this.#hasEntered) await this.#answer(taken)
        else await this.#start(taken)
      }
    } catch (error) {
      console.error('a session has failed:', error)
      this.#socket.destroy()
    }
    this.#isBusy = false
    if (this.#hasEnded) await this.#database.leave(this)
    else if (this.#chunks.length > 0) this.#work()
  }

  /** The next whole message, whose length stands at an offset; null where it is not all there. */
  #take(offset) {
    if (this.#input.length < offset + 4) return null
    const length = offset + this.#input.readInt32BE(offset)
    if (this.#input.length < length) return null
    const taken = this.#input.subarray(0, length)
    this.#input = this.#input.subarray(length)
    return taken
  }

  async #start(packet) {
    switch (packet.readInt32BE(4)) {
      case SSL_REQUEST:
      case GSS_REQUEST:
        this.#socket.write('N')
        return
      case CANCEL_REQUEST:
        this.#socket.end()
        return
    }
    if (!(await this.#database.enter(this))) {
      this.#socket.end(failure('53300', 'too many connections for this database: it lets one session in at a time'))
      return
    }
    this.#hasEntered = true
    if (startup(packet).database === 'fresh') await this.#database.renew()
    const facts = "SELECT current_setting('server_version') AS version, pg_backend_pid() AS pid"
    const { rows } = await this.#database.pg.query(facts)
    // A login that names another process than the one that answers is one of a pooler.
    const key = Buffer.alloc(8)
    key.writeInt32BE(rows[0].pid, 0)
    this.#socket.write(
      Buffer.concat([
        message('R', Buffer.alloc(4)),
        parameter('server_version', rows[0].version),
        parameter('server_encoding', 'UTF8'),
        parameter('client_encoding', 'UTF8'),
        parameter('DateStyle', 'ISO, MDY'),
        parameter('TimeZone', 'UTC'),
        parameter('integer_datetimes', 'on'),
        parameter('standard_conforming_strings', 'on'),
        message('K', key),
        message('Z', Buffer.from('I')),
      ]),
    )
  }

  async #answer(packet) {
    const letter = String.fromCharCode(packet[0])
    if (this.#copy) return this.#collect(letter, packet)
    if (letter === 'X') return this.#socket.end()
    if (letter === 'Q') {
      if (isCopyIn(word(packet, 5)[0])) {
        this.#copy = { isSimple: true, parts: [packet], isDone: false }
        this.#socket.write(COPY_IN)
      } else {
        this.#socket.write(await this.#database.answer(packet))
      }
      return
    }
    if (letter === 'P') {
      const [name, after] = word(packet, 5)
      if (isCopyIn(word(packet, after)[0])) this.#copyStatements.add(name)
      else this.#copyStatements.delete(name)
    } else if (letter === 'B') {
      const [portal, after] = word(packet, 5)
      if (this.#copyStatements.has(word(packet, after)[0])) this.#copyPortals.add(portal)
      else this.#copyPortals.delete(portal)
    }
    this.#batch.push(packet)
    if (letter === 'E' && this.#copyPortals.has(word(packet, 5)[0])) {
      const parts = this.#batch.splice(0)
      const isParsed = parts.some((part) => part[0] === 'P'.charCodeAt(0))
      this.#copy = { isSimple: false, parts, isDone: false }
      this.#socket.write(Buffer.concat([...(isParsed ? [PARSED] : []), BOUND, COPY_IN]))
    } else if (letter === 'S' || letter === 'H') {
      this.#socket.write(await this.#database.answer(Buffer.concat(this.#batch.splice(0))))
    }
  }

  /** Collects the rows of a COPY, and passes all on at its end. What was answered already is not answered again. */
  async #collect(letter, packet) {
    const copy = this.#copy
    if (letter === 'd') {
      copy.parts.push(packet)
    } else if (letter === 'c' || letter === 'f') {
      copy.parts.push(packet)
      copy.isDone = true
      if (copy.isSimple) {
        this.#copy = null
        this.#socket.write(without(await this.#database.answer(Buffer.concat(copy.parts)), 'G'))
      }
    } else if (letter === 'S' && copy.isDone) {
      this.#copy = null
      copy.parts.push(packet)
      this.#socket.write(without(await this.#database.answer(Buffer.concat(copy.parts)), 'G12'))
    }
  }
}

await Promise.all(
  ports.map((port) => {
    const database = new Database()
    const server = net.createServer((socket) => new Session(database, socket))
    return new Promise((resolve, reject) => {
      server.on('error', reject)
      server.listen(Number(port), '127.0.0.1', resolve)
    })
  }),
)
console.log('ready')
