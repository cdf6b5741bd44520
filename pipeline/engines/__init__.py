"""The engines that generate behind the server: one interface, three implementations."""
