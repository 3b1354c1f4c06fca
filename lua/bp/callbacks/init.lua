--- bp.callbacks: what fit can call while it runs. See bp.callbacks.list for a callback of one's own.
return {
  early_stopping = require "bp.callbacks.early_stopping",
  checkpoint = require "bp.callbacks.checkpoint",
  reduce_lr_on_plateau = require "bp.callbacks.reduce_lr_on_plateau",
  csv_logger = require "bp.callbacks.csv_logger",
  lr_schedule = require "bp.callbacks.lr_schedule",
  nan_guard = require "bp.callbacks.nan_guard",
  time_limit = require "bp.callbacks.time_limit",
  tfevents = require "bp.callbacks.tfevents",
  progress = require "bp.callbacks.progress",
  lambda = require "bp.callbacks.lambda",
}
