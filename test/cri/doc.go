// Program cri is a small client of Kubernetes' container runtime interface, for
// the scripts of package script: what crictl does, which Debian does not have.
//
//	takes    the socket of a runtime, the name of a call, its request as JSON
//	gives    the reply as JSON; of exec, what the process writes
//	touches  the socket, and for exec the port of loopback that the runtime names
//	state    none
//
// A call of gRPC is a POST over HTTP/2 with a five byte head before the message
// and the status in the trailer: net/http alone can do that, and the few messages
// that the scripts send are told by api.proto, in the words of Kubernetes. So
// neither gRPC nor Kubernetes' modules are needed for tests.
//
//	cri SOCKET RunPodSandbox '{"config": {…}}'
//	cri SOCKET exec '{"container_id": "…", "cmd": ["tty"], "tty": true, "stdout": true}' < INPUT
package main
