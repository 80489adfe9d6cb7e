"""Keys: wallet files, encryption, and where a passphrase comes from."""
