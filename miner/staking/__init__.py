"""From a kept candidate to a staked proposal: confirm, weigh, submit."""
