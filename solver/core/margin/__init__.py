"""What a portfolio must have behind it: option values, scenarios, and published margin rules.

Everything here is a function of values and arrays. Amounts are floats in the unit of account,
because option prices are; whoever gates a settlement with them rounds against the account.
"""
