//! The Brig engine: containers, images, networks and volumes joined, and the Docker Engine API server.
