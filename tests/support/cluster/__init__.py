"""As much of a Kubernetes node as it takes to run rendered pods for real: network → container → pod → cluster.

Each pod has a network namespace with an address of its own, each container a mount and a process namespace with the
volumes where its image expects them, a user without rights and a root that can't be written to. Names are resolved by
a real DNS server (dnsmasq). What a node has and this hasn't: images (programs of this machine stand in for them),
kube-proxy (the name of a service leads to its ready pods, with or without a cluster address) and limits.
"""
