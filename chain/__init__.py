"""The OpenResearch program, the networks it runs on, wallets, scores and Irys storage."""
