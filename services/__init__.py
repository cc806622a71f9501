"""The four services. They never import one another; in one process they still speak gRPC over loopback."""
