"""What each command does to an account.

`runner` takes a command from its record to its outcome; `handlers` lists the handler of each command type, and the other
modules hold the handlers by subject. A handler checks first, and raises `Refused` before it has changed anything. Then it
changes the account, writes the ledger, then the events.
"""
