variable "name" {
  description = "Name of the budget and of its topic."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9_-]{1,100}$", var.name))
    error_message = "name has at most 100 letters, digits, \"_\" and \"-\"."
  }
}

variable "monthly_usd" {
  description = "What a month may cost, in US dollars. The alarm tells, and stops nothing."
  type        = number

  validation {
    condition     = var.monthly_usd > 0
    error_message = "monthly_usd is more than 0."
  }
}

variable "actual_percents" {
  description = "Shares of the limit, in percent, at which what was spent is told. A forecast above the limit is told always."
  type        = list(number)
  default     = [50, 80, 100]

  # Budgets takes five notifications.
  validation {
    condition     = length(var.actual_percents) >= 1 && length(var.actual_percents) <= 4 && alltrue([for percent in var.actual_percents : percent > 0 && percent <= 1000])
    error_message = "actual_percents are one to four numbers above 0, and 1000 at most."
  }
}

variable "emails" {
  description = "Who is told by mail."
  type        = list(string)

  validation {
    condition     = length(var.emails) > 0 && alltrue([for email in var.emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", email))])
    error_message = "emails are addresses, at least one: an alarm that nobody gets is none."
  }
}

variable "cost_tag" {
  description = "Tag of what is counted; it must be activated as a cost allocation tag. Null counts the whole account."
  type = object({
    key   = string
    value = string
  })
  default = null
}

variable "kms_key_arn" {
  description = "Key that encrypts the topic. Its policy lets budgets.amazonaws.com use it."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a key, not its alias."
  }
}

variable "account_id" {
  description = "AWS account that everything is in."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id has 12 digits."
  }
}

variable "region" {
  description = "AWS region that everything is in."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is a region's name, as in eu-central-1."
  }
}

variable "partition" {
  description = "AWS partition, aws or aws-us-gov: in China services have other names."
  type        = string
  default     = "aws"

  validation {
    condition     = contains(["aws", "aws-us-gov"], var.partition)
    error_message = "partition is aws or aws-us-gov."
  }
}
