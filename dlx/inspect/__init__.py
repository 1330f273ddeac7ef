"""Looks inside an experiment by its contract alone, and says what its layers cost.

findings      what a check says: findings, figures, or why it cannot be asked
subject       an experiment made ready: data placed, programs compiled once
operations    values inside a traced function: ReLUs, inputs of layers
examples      the data: labels, duplicates, leaks, constant and unfinished columns
beginning     before training: first loss, scale of the inputs, sum or mean
gradients     gradients and movement of every tensor
units         ReLUs that are never on, over a data set
rate_finder   the learning rate that a range test suggests
learning      short runs: with true and with shuffled labels, training against test
players       two players: who stands still, who wins, whose gradient is gone
samples       samples of a generator: alike, copied, of which classes
timing        shares of input, compilation and steps
recipe        the steps of the usual recipe of training, by short runs
places        lines of an experiment's file

layers           what a model costs, layer by layer, before anything is trained
sizes            the same of single layers, by arithmetic alone
receptive_field  of whatever a function computes, by spans and primitives

maps             a trained model of images: filters, features, maps of evidence, units
"""
