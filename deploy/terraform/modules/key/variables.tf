variable "name" {
  description = "Alias of the key, without \"alias/\"."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9/_-]{1,200}$", var.name)) && !startswith(var.name, "aws/")
    error_message = "name takes letters, digits, \"/\", \"_\" and \"-\", and does not begin with \"aws/\"."
  }
}

variable "description" {
  description = "What the key encrypts."
  type        = string

  validation {
    condition     = length(var.description) > 0
    error_message = "description says what the key encrypts."
  }
}

variable "services" {
  description = "AWS services that use the key for what they deliver themselves, as budgets.amazonaws.com."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for service in var.services : can(regex("^[a-z0-9.-]+\\.amazonaws\\.com$", service))])
    error_message = "services are service principals, as in budgets.amazonaws.com."
  }
}

variable "logs" {
  description = "Whether log groups of the region may be encrypted with the key."
  type        = bool
  default     = false
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
