"""A gRPC server: `server.py NAME PORT`. Each session has a counter in this process's memory, so a call that comes to another
server than the one before is seen by its count. Messages are UTF-8 without protobuf."""

import sys
from concurrent import futures

import grpc

name, port = sys.argv[1], sys.argv[2]
counts = {}


def metadata(context):
    return dict(context.invocation_metadata())


def count(context):
    """The calls of this client, by the metadata `client-name`, that came here."""
    client = metadata(context).get("client-name", "")
    counts[client] = counts.get(client, 0) + 1
    return f"{name} {counts[client]}".encode()


def add(request, context):
    context.set_trailing_metadata((("served-by", name),))
    return count(context)


def fail(request, context):
    context.set_trailing_metadata((("served-by", name),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")


def watch(request, context):
    for number in range(int(request)):
        yield f"{name} {number}".encode()


def chat(requests, context):
    for request in requests:
        yield name.encode() + b" " + request


def whole(requests, context):
    """The length of everything that the client has streamed."""
    return f"{name} {sum(len(request) for request in requests)}".encode()


handlers = grpc.method_handlers_generic_handler(
    "homing.Counter",
    {
        "Add": grpc.unary_unary_rpc_method_handler(add),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Watch": grpc.unary_stream_rpc_method_handler(watch),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Whole": grpc.stream_unary_rpc_method_handler(whole),
    },
)
server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
server.add_generic_rpc_handlers((handlers,))
server.add_insecure_port(f"127.0.0.1:{port}")
server.start()
server.wait_for_termination()
