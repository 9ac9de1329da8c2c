"""A gRPC client: `client.py ADDRESS CLIENT-NAME [CA-FILE HOST]`, with TLS when there is an authority. It is led by JSON lines and
answers each with one. A session is kept as such clients keep one: metadata of a response is sent with the calls after it."""

import json
import sys

import grpc

address, client_name = sys.argv[1], sys.argv[2]
if len(sys.argv) > 3:
    with open(sys.argv[3], "rb") as file:
        credentials = grpc.ssl_channel_credentials(root_certificates=file.read())
    channel = grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", sys.argv[4])])
else:
    channel = grpc.insecure_channel(address)
session = None


def metadata():
    sent = [("client-name", client_name)]
    return sent + [("x-session", session)] if session else sent


def remember(call):
    global session
    session = dict(call.initial_metadata()).get("x-session", session)


def run(command):
    what, timeout = command["do"], 30
    method = f"/homing.Counter/{what}"
    if what == "Add":
        response, call = channel.unary_unary(method).with_call(b"", metadata=metadata(), timeout=timeout)
        remember(call)
        return {"responses": [response.decode()], "trailing": dict(call.trailing_metadata())}
    if what == "Fail":
        try:
            channel.unary_unary(method).with_call(b"", metadata=metadata(), timeout=timeout)
            return {"code": "OK"}
        except grpc.RpcError as error:
            trailing = {name: value for name, value in error.trailing_metadata() if isinstance(value, str)}
            return {"code": error.code().name, "details": error.details(), "trailing": trailing}
    if what == "Watch":
        call = channel.unary_stream(method)(str(command["messages"]).encode(), metadata=metadata(), timeout=timeout)
        remember(call)
        return {"responses": [response.decode() for response in call]}
    if what == "Chat":
        requests = (f"message {number}".encode() for number in range(command["messages"]))
        call = channel.stream_stream(method)(requests, metadata=metadata(), timeout=timeout)
        remember(call)
        return {"responses": [response.decode() for response in call]}
    if what == "Whole":
        requests = (b"x" * command["size"] for _ in range(command["messages"]))
        response, call = channel.stream_unary(method).with_call(requests, metadata=metadata(), timeout=timeout)
        remember(call)
        return {"responses": [response.decode()]}
    raise ValueError(what)


for line in sys.stdin:
    command = json.loads(line)
    try:
        answer = run(command)
    except grpc.RpcError as error:
        answer = {"code": error.code().name, "details": error.details()}
    print(json.dumps({"event": "done", "session": session, **answer}), flush=True)
