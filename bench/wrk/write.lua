-- Writes to one channel. The requests are prepared: wrk shares the machine with the server.
local requests, next_request = {}, 0

function init()
  for number = 1, 1000 do
    local text = string.format("%04d+the+quick+brown+fox+jumps+over+the+lazy+dog", number)
    local path = "/write?channel=wrk&message=" .. text
    requests[number] = wrk.format("GET", path)
  end
end

function request()
  next_request = next_request % #requests + 1
  return requests[next_request]
end
