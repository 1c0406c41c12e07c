-- Reads that are answered at once. READ=empty: timeout=0 and no message; READ=message: one message.
local paths = {
  empty = "/read?channel=wrk-empty&timeout=0",
  message = "/read?channel=wrk-one&from_id=1",
}
local prepared

function init()
  prepared = wrk.format("GET", paths[os.getenv("READ") or "message"])
end

function request()
  return prepared
end
