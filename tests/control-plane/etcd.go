package main

import (
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"

	"ensign.dev/ensign/tests/control-plane/internal/component"
)

// runEtcd serves one etcd member in the working directory, on Unix sockets: no
// port to choose, and nobody but the owner of the folder can reach it.
func runEtcd() int {
	client := url.URL{Scheme: "unix", Host: component.EtcdSocket}
	peer := url.URL{Scheme: "unix", Host: component.EtcdPeerSocket}

	config := embed.NewConfig()
	config.Name = "control-plane"
	config.Dir = component.EtcdData
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	// The data has to survive a kill of the process, not the loss of power.
	config.UnsafeNoFsync = true
	// A single member elects itself: there is nobody to wait for.
	config.TickMs, config.ElectionMs = 10, 100
	config.LogLevel = "warn"
	config.LogOutputs = []string{"stderr"}

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	server, err := embed.StartEtcd(config)
	if err != nil {
		fmt.Fprintf(os.Stderr, "etcd: %v\n", err)
		return 1
	}
	select {
	case <-stop:
		// Not server.Close(): it waits for the watches of kube-apiserver, and the
		// write-ahead log makes a sudden end as good as an orderly one.
		return 0
	case err := <-server.Err():
		fmt.Fprintf(os.Stderr, "etcd: %v\n", err)
		return 1
	}
}
