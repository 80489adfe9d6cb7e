"""Settings, and one opened network with its wallet and Irys."""
